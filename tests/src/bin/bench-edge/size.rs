//! How long a balancer takes to follow one change of a backend, however large it is. Its servers are addresses only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use evenkeel::edge::haproxy::{boot, drive};
use evenkeel::model::{BalancerKind, Target};
use evenkeel_tests::balancer::{Balancer, follows, listen, nothing, route, serve, web};
use tokio::time::Instant;

use evenkeel_tests::measure::rows;

pub(crate) async fn measure(quick: bool) {
    let times = if quick { 10 } else { 50 };
    for size in [10_u32, 100, 1000] {
        eprintln!("size: {size}");
        let mut balancer = Balancer::start(boot()).await;
        let mut table = nothing(BalancerKind::Haproxy);
        listen(&mut table, "http", 80);
        let pool = web(&mut table, "web", size + 1);
        route(&mut table, "http", None, "/", &pool);
        // Nobody is there to answer a check.
        for pool in Arc::make_mut(&mut table.routing).pools.values_mut() {
            pool.check = None;
        }
        let all: Vec<(u32, SocketAddr, Target)> = (0..=size)
            .map(|n| {
                let ip = Ipv4Addr::from(0x0a63_0000 + n + 1);
                (n + 1, SocketAddr::new(IpAddr::V4(ip), 8080), Target::Ready)
            })
            .collect();
        let without = all.len() - 1;
        serve(&mut table, &pool, &all[..without]);
        balancer.drive(&table, drive).await;
        balancer.follows(&table).await;
        let mut took = Vec::new();
        for n in 0..times {
            // What the change before left to do, such as its file, is done.
            tokio::time::sleep(Duration::from_millis(if quick { 200 } else { 1500 })).await;
            serve(&mut table, &pool, if n % 2 == 0 { &all } else { &all[..without] });
            let begun = Instant::now();
            balancer.order(&table);
            while !follows(&balancer.view(), &table) {
                assert!(begun.elapsed() < Duration::from_secs(30), "it does not follow");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let what = format!("HAProxy follows one change of {size} servers");
        rows("size", &what, &took, [None, None]);
    }
}
