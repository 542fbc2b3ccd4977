//! keepalived's rendered configuration on a real network: the address is where a balancer serves.

use std::process::Command;
use std::time::Duration;

use evenkeel::edge::keepalived::{VirtualAddress, render};
use evenkeel_tests::container::eventually;
use evenkeel_tests::docker::{TEST, serial, sweep};

/// Removes what it made at the end, after a panic too.
struct Swept(String);

impl Drop for Swept {
    fn drop(&mut self) {
        sweep(&self.0);
    }
}

fn docker(args: &[&str]) -> String {
    let out = Command::new("docker").args(args).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).trim().to_owned();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    said
}

#[tokio::test]
async fn the_address_moves_when_a_balancer_stops_serving_and_stays_when_it_comes_back() {
    let owner = format!("t-{}-{}", std::process::id(), serial());
    let _swept = Swept(owner.clone());
    let label = format!("{TEST}={owner}");
    let network = format!("{owner}-net");
    docker(&["network", "create", "--label", &label, &network]);
    let subnet =
        docker(&["network", "inspect", "-f", "{{(index .IPAM.Config 0).Subnet}}", &network]);
    let (base, length) = subnet.split_once('/').unwrap();
    let address = format!("{}.200", base.rsplit_once('.').unwrap().0);
    let start = |name: &str, priority: u8| {
        let text = render(&VirtualAddress {
            address: address.parse().unwrap(),
            length: length.parse().unwrap(),
            interface: "eth0".into(),
            router_id: 50,
            priority,
            port: 80,
            peers: None,
            interval: Duration::from_secs(1),
        });
        let script = "printf '%s' \"$CONFIG\" >/etc/keepalived/keepalived.conf
            printf 'events {} http { server { listen 80; } }' >/tmp/nginx.conf
            keepalived -t && exec keepalived -n -l";
        let config = format!("CONFIG={}", text.unwrap());
        let name = format!("{owner}-{name}");
        let mut args = vec!["run", "-d", "--name", &name, "--label", &label, "--network", &network];
        args.extend(["--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW", "-e", &config]);
        args.extend(["evenkeel/balancers:1", "bash", "-c", script]);
        docker(&args);
        name
    };
    let (low, high) = (start("low", 100), start("high", 101));
    let run = |name: &str, script: &str| docker(&["exec", name, "bash", "-c", script]);
    let has = |name: &str| run(name, "ip -4 addr show eth0").contains(&format!("{address}/"));
    let serve = |name: &str| run(name, "nginx -c /tmp/nginx.conf");
    let only = async |one: &str, other: &str| {
        eventually("exactly one has the address", async || has(one) && !has(other)).await;
    };

    serve(&low);
    only(&low, &high).await;
    // The better one serves too. It has had its time to take the address, and leaves it where it is.
    serve(&high);
    eventually("its check holds", async || {
        let log = Command::new("docker").args(["logs", &high]).output().unwrap();
        let log = [log.stdout, log.stderr].concat();
        String::from_utf8_lossy(&log).contains("Entering BACKUP STATE")
    })
    .await;
    let taken = eventually("it takes the address", async || has(&high));
    assert!(tokio::time::timeout(Duration::from_secs(6), taken).await.is_err(), "it preempts");
    only(&low, &high).await;
    // The balancer of the one that has it stops, its container does not.
    run(&low, "nginx -c /tmp/nginx.conf -s stop");
    only(&high, &low).await;
    serve(&low);
    only(&high, &low).await;
    // The container dies.
    docker(&["kill", &high]);
    eventually("the other has it", async || has(&low)).await;
}
