//! Documents, good and bad, and who can tell.

/// What is to be said of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// `check` and the API server take it, and fill in the same defaults.
    Good,
    /// Both refuse it.
    Bad,
    /// Only `check` refuses it: the reason why no rule of a schema can.
    Beyond(&'static str),
}

use Verdict::{Bad, Beyond, Good};

const ABILITY: &str = "what this version cannot do yet, another can";
const OTHERS: &str = "rules see one object";
const FORM: &str = "the form is too rich for a rule within its budget";

/// A service's `spec`.
pub(crate) const SERVICES: &[(&str, Verdict)] = &[
    // Shape.
    ("{image: a}", Good),
    ("{image: a, replica: 2}", Bad),
    ("{image: a, Replicas: 2}", Bad),
    ("{}", Bad),
    ("[a]", Bad),
    ("{image: a, ports: {name: http}}", Bad),
    ("{image: a, command: sh}", Bad),
    ("{image: a, env: [{name: A}]}", Bad),
    ("{image: a, env: [{name: A, value: b, secret: {name: app, key: token}}]}", Bad),
    ("{image: a, env: [{name: A=B, value: c}]}", Bad),
    ("{image: a, env: [{name: C, value: c}, {name: C, value: d}]}", Bad),
    ("{image: a, env: [{name: A, value: b}, {name: T, secret: {name: app, key: token}}]}", Good),
    ("{image: a, env: [{name: A, secret: {name: app, key: ..}}]}", Bad),
    ("{image: a, env: [{name: A, value: ''}]}", Good),
    ("{image: a, suspend: true, args: [a, b], command: [sh]}", Good),
    // Numbers and amounts.
    ("{image: a, replicas: 0}", Good),
    ("{image: a, replicas: 10000}", Good),
    ("{image: a, replicas: -1}", Bad),
    ("{image: a, replicas: 10001}", Bad),
    ("{image: a, replicas: 1.5}", Bad),
    ("{image: a, replicas: \"3\"}", Bad),
    ("{image: a, rollout: {maxSurge: 101%}}", Bad),
    ("{image: a, rollout: {maxSurge: 100%, maxUnavailable: 10000}}", Good),
    ("{image: a, rollout: {maxSurge: 0, maxUnavailable: 0}}", Good),
    ("{image: a, rollout: {maxUnavailable: -1}}", Bad),
    ("{image: a, rollout: {onFailure: retry}}", Bad),
    ("{image: a, rollout: {minReadySeconds: 10, progressDeadline: 10s}}", Bad),
    ("{image: a, rollout: {minReadySeconds: 10, progressDeadline: 10001ms}}", Good),
    ("{image: a, rollout: {minReadySeconds: 600}}", Bad),
    ("{image: a, rollout: {minReadySeconds: 599}}", Good),
    ("{image: a, rollout: {progressDeadline: 0s}}", Bad),
    ("{image: a, resources: {cpu: 100m, memory: 6Mi}}", Good),
    ("{image: a, resources: {cpu: 2, memory: 1024Ti}}", Good),
    ("{image: a, resources: {cpu: 0}}", Bad),
    ("{image: a, resources: {memory: 64}}", Bad),
    ("{image: a, resources: {memory: 5Mi}}", Bad),
    ("{image: a, resources: {memory: 6143Ki}}", Bad),
    ("{image: a, resources: {memory: 6144Ki}}", Good),
    ("{image: a, resources: {memory: 1025Ti}}", Bad),
    ("{image: a, resources: {memory: 9999999k}}", Good),
    // Durations.
    ("{image: a, termination: {drain: 10}}", Bad),
    ("{image: a, termination: {drain: 10 s}}", Bad),
    ("{image: a, termination: {drain: 0s, grace: 1h30m, signal: SIGRTMIN+3}}", Good),
    ("{image: a, termination: {grace: 8784h}}", Good),
    ("{image: a, termination: {grace: 8784h1ms}}", Bad),
    ("{image: a, termination: {grace: 9999999h}}", Bad),
    ("{image: a, termination: {signal: SIGSTOP}}", Bad),
    ("{image: a, onHostLost: {replaceAfter: 0s, keep: original}}", Good),
    ("{image: a, onHostLost: {keep: healthyest}}", Bad),
    // Ports.
    ("{image: a, ports: [{name: http, containerPort: 80}]}", Good),
    ("{image: a, ports: [{name: http, containerPort: 0}]}", Bad),
    ("{image: a, ports: [{name: http, containerPort: 65536}]}", Bad),
    ("{image: a, ports: [{name: a, containerPort: 1}, {name: a, containerPort: 2}]}", Bad),
    (
        "{image: a, ports: [{name: a, containerPort: 1, publish: 80}, {name: b, containerPort: 2, publish: 80}]}",
        Bad,
    ),
    (
        "{image: a, ports: [{name: a, containerPort: 1, publish: 53}, {name: b, containerPort: 2, publish: 53, protocol: udp}]}",
        Good,
    ),
    ("{image: a, replicas: 2, ports: [{name: a, containerPort: 1, publish: 65535}]}", Bad),
    ("{image: a, replicas: 1, ports: [{name: a, containerPort: 1, publish: 65535}]}", Good),
    ("{image: a, replicas: 0, ports: [{name: a, containerPort: 1, publish: 65535}]}", Good),
    (
        "{image: a, replicas: 9, placement: {maxPerHost: 1}, ports: [{name: a, containerPort: 1, publish: 65535}]}",
        Good,
    ),
    (
        "{image: a, replicas: 9, placement: {maxPerHost: 2}, ports: [{name: a, containerPort: 1, publish: 65535}]}",
        Bad,
    ),
    // Health.
    ("{image: a, health: {http: {port: web}}, ports: [{name: http, containerPort: 80}]}", Bad),
    ("{image: a, health: {http: {port: http}}, ports: [{name: http, containerPort: 80}]}", Good),
    ("{image: a, health: {http: {port: 80}}}", Good),
    (
        "{image: a, health: {tcp: {port: dns}}, ports: [{name: dns, containerPort: 53, protocol: udp}]}",
        Bad,
    ),
    (
        "{image: a, health: {tcp: {port: 53}}, ports: [{name: dns, containerPort: 53, protocol: udp}]}",
        Bad,
    ),
    (
        "{image: a, health: {tcp: {port: 53}}, ports: [{name: u, containerPort: 53, protocol: udp}, {name: t, containerPort: 53}]}",
        Good,
    ),
    (
        "{image: a, health: {http: {port: u}}, ports: [{name: u, containerPort: 53, protocol: udp}, {name: t, containerPort: 53}]}",
        Bad,
    ),
    ("{image: a, health: {http: {port: 80}, tcp: {port: 80}}}", Bad),
    ("{image: a, health: {interval: 1s}}", Bad),
    ("{image: a, health: {tcp: {port: 80}, interval: 0s}}", Bad),
    ("{image: a, health: {tcp: {port: 80}, timeout: 0ms}}", Bad),
    ("{image: a, health: {tcp: {port: 80}, startPeriod: 0s, interval: 1ms}}", Good),
    ("{image: a, health: {command: {command: []}}}", Bad),
    // Networks and volumes.
    ("{image: a, networks: [a, a]}", Bad),
    ("{image: a, networks: [backend, front]}", Good),
    ("{image: a, networks: [bridge]}", Good),
    ("{image: a, networks: [bridge, backend]}", Bad),
    ("{image: a, networks: [host]}", Bad),
    ("{image: a, networks: [none]}", Bad),
    ("{image: a, networks: [default]}", Bad),
    ("{image: a, networks: [ingress]}", Bad),
    ("{image: a, networks: [..]}", Bad),
    ("{image: a, volumes: [{name: d, mountPath: /data, hostPath: /srv/data}]}", Good),
    ("{image: a, volumes: [{name: d, mountPath: /data, volume: data, readOnly: true}]}", Good),
    ("{image: a, volumes: [{name: d, mountPath: /data}]}", Bad),
    ("{image: a, volumes: [{name: d, mountPath: data, volume: v}]}", Bad),
    ("{image: a, volumes: [{name: d, mountPath: /, volume: v}]}", Bad),
    ("{image: a, volumes: [{name: d, mountPath: /./, volume: v}]}", Bad),
    ("{image: a, volumes: [{name: d, mountPath: /..., volume: v}]}", Good),
    ("{image: a, volumes: [{name: d, mountPath: /a/../b, volume: v}]}", Bad),
    ("{image: a, volumes: [{name: d, mountPath: /a..b, volume: v}]}", Good),
    ("{image: a, volumes: [{name: d, mountPath: /a, hostPath: /..}]}", Bad),
    ("{image: a, volumes: [{name: d, mountPath: \"/a\\u0007\", volume: v}]}", Bad),
    (
        "{image: a, volumes: [{name: d, mountPath: /a, volume: v}, {name: e, mountPath: /a, volume: w}]}",
        Bad,
    ),
    (
        "{image: a, volumes: [{name: d, mountPath: /a, volume: v}, {name: e, mountPath: /a/, volume: w}]}",
        Beyond(FORM),
    ),
    // Images.
    ("{image: 'registry.example:5000/team/app_x.y--z:1.4.2'}", Good),
    ("{image: 'localhost/app'}", Good),
    ("{image: 'Registry/app'}", Good),
    ("{image: 'a/b/c:v_1.2-3'}", Good),
    (
        "{image: 'nginx@sha256:0000000000000000000000000000000000000000000000000000000000000000'}",
        Good,
    ),
    (
        "{image: 'nginx:1@sha256:0000000000000000000000000000000000000000000000000000000000000000'}",
        Good,
    ),
    ("{image: 'nginx@sha256:00'}", Bad),
    ("{image: 'nginx:-1'}", Bad),
    ("{image: 'nginx:'}", Bad),
    ("{image: 'team/App'}", Bad),
    ("{image: 'a//b'}", Bad),
    ("{image: 'a_/b'}", Bad),
    ("{image: 'a___b'}", Bad),
    ("{image: '-a/b'}", Bad),
    ("{image: 'http://a/b'}", Bad),
    ("{image: 'a:70000/b'}", Beyond(FORM)),
    // Placement.
    ("{image: a, placement: {constraints: [\"a == b\"]}}", Beyond(OTHERS)),
    ("{image: a, placement: {constraints: [\"a != b\"], packing: binpack}}", Good),
    ("{image: a, placement: {constraints: [\"a = b\"]}}", Bad),
    ("{image: a, placement: {maxPerHost: 0}}", Bad),
    ("{image: a, placement: {packing: tight}}", Bad),
    ("{image: a, fleet: nowhere}", Beyond(OTHERS)),
    ("{image: a, fleet: Shop}", Bad),
    // Routes and the registry.
    ("{image: a, routes: [{loadBalancer: edge, listener: http, port: 80}]}", Beyond(OTHERS)),
    ("{image: a, routes: [{loadBalancer: edge, listener: http, port: http}]}", Bad),
    (
        "{image: a, routes: [{loadBalancer: e, listener: h, port: d}], ports: [{name: d, containerPort: 53, protocol: udp}]}",
        Bad,
    ),
    ("{image: a, routes: [{loadBalancer: edge, listener: http, port: 80, host: A.example}]}", Bad),
    ("{image: a, routes: [{loadBalancer: edge, listener: http, port: 80, pathPrefix: api}]}", Bad),
    ("{image: a, discovery: {tags: [a, b], meta: {key_1: v}}}", Good),
    ("{image: a, discovery: {tags: [a, a]}}", Bad),
    ("{image: a, discovery: {meta: {'a b': v}}}", Bad),
];

/// A balancer's `spec`.
pub(crate) const BALANCERS: &[(&str, Verdict)] = &[
    ("{provider: {haproxy: {}}, listeners: [{name: http, port: 80}]}", Good),
    (
        "{provider: {nginx: {image: 'nginx:1.28'}}, listeners: [{name: http, port: 80, publish: 8080}]}",
        Good,
    ),
    ("{provider: {haproxy: {}, nginx: {}}, listeners: [{name: http, port: 80}]}", Bad),
    ("{provider: {}, listeners: [{name: http, port: 80}]}", Bad),
    ("{provider: {haproxy: {}}, listeners: []}", Bad),
    ("{provider: {haproxy: {}}, listeners: [{name: a, port: 80}, {name: a, port: 81}]}", Bad),
    ("{provider: {haproxy: {}}, listeners: [{name: a, port: 80}, {name: b, port: 80}]}", Bad),
    (
        "{provider: {haproxy: {}}, listeners: [{name: a, port: 80, publish: 1}, {name: b, port: 81, publish: 1}]}",
        Bad,
    ),
    ("{provider: {haproxy: {}}, listeners: [{name: a, port: 9099}]}", Bad),
    ("{provider: {nginx: {}}, listeners: [{name: a, port: 9099}]}", Good),
    ("{provider: {nginx: {}}, listeners: [{name: a, port: 10901}]}", Bad),
    ("{provider: {haproxy: {}}, listeners: [{name: a, port: 10901}]}", Good),
    (
        "{provider: {haproxy: {external: [{runtimeSocket: /run/haproxy.sock}]}}, listeners: [{name: a, port: 9099}]}",
        Good,
    ),
    (
        "{provider: {haproxy: {external: [{runtimeSocket: /run/haproxy.sock}]}}, listeners: [{name: a, port: 80, publish: 81}]}",
        Bad,
    ),
    ("{provider: {haproxy: {}}, replicas: 2, listeners: [{name: a, port: 65535}]}", Bad),
    (
        "{provider: {haproxy: {}}, replicas: 2, listeners: [{name: a, port: 80, publish: 65535}]}",
        Bad,
    ),
    ("{provider: {haproxy: {}}, replicas: 1, listeners: [{name: a, port: 65535}]}", Good),
    ("{provider: {haproxy: {}}, replicas: 1001, listeners: [{name: a, port: 80}]}", Bad),
    ("{provider: {haproxy: {}}, listeners: [{name: a, port: 80, protocol: tcp}]}", Good),
    (
        "{provider: {haproxy: {}}, listeners: [{name: a, port: 80, protocol: tcp, certificates: [{name: app, key: token}]}]}",
        Bad,
    ),
    (
        "{provider: {haproxy: {}}, listeners: [{name: a, port: 443, certificates: [{name: app, key: token}]}]}",
        Good,
    ),
    ("{provider: {haproxy: {image: 'A:'}}, listeners: [{name: a, port: 80}]}", Bad),
    ("{provider: {haproxy: {}}, listeners: [{name: a, port: 80}], networks: [host]}", Bad),
    (
        "{provider: {haproxy: {}}, listeners: [{name: a, port: 80}], virtualIp: {address: 10.0.0.9/24, interface: eth0, routerId: 5}}",
        Good,
    ),
    (
        "{provider: {haproxy: {}}, listeners: [{name: a, port: 80}], virtualIp: {address: 'fd00::9/64', interface: eth0, routerId: 5}}",
        Good,
    ),
    (
        "{provider: {haproxy: {}}, listeners: [{name: a, port: 80}], virtualIp: {address: 10.0.0.9/33, interface: eth0, routerId: 5}}",
        Bad,
    ),
    (
        "{provider: {haproxy: {}}, listeners: [{name: a, port: 80}], virtualIp: {address: 10.0.0/24, interface: eth0, routerId: 5}}",
        Bad,
    ),
    (
        "{provider: {haproxy: {}}, listeners: [{name: a, port: 80}], virtualIp: {address: 10.0.0.900/24, interface: eth0, routerId: 5}}",
        Beyond(FORM),
    ),
    (
        "{provider: {haproxy: {}}, listeners: [{name: a, port: 80}], virtualIp: {address: 10.0.0.9/24, interface: eth0, routerId: 0}}",
        Bad,
    ),
    ("{provider: {haproxy: {}}, listeners: [{name: a, port: 80}], fleet: nowhere}", Beyond(OTHERS)),
];

/// A fleet's `spec`.
pub(crate) const FLEETS: &[(&str, Verdict)] = &[
    ("{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///var/run/docker.sock'}]}}}", Good),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'ssh://deploy@10.0.0.1:22', labels: {zone: a}, state: cordoned}]}}}",
        Good,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'tcp://10.0.0.1:2376', tls: {caFile: /a, certFile: /b, keyFile: /c}}]}}}",
        Good,
    ),
    (
        "{backend: {docker: {registryAuthSecret: {name: r, key: .dockerconfigjson}, hosts: [{name: h, endpoint: 'tcp://10.0.0.1:2376', tls: {caSecret: {name: t, key: ca.pem}, certSecret: {name: t, key: b}, keySecret: {name: t, key: c}}}]}}}",
        Good,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'tcp://10.0.0.1:2376', tls: {caFile: /a, certFile: /b, keySecret: {name: t, key: c}}}]}}}",
        Good,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'tcp://10.0.0.1:2376', tls: {caFile: /a, caSecret: {name: t, key: a}, certFile: /b, keyFile: /c}}]}}}",
        Bad,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'tcp://10.0.0.1:2376', tls: {caFile: /a, certSecret: {name: t, key: b}}}]}}}",
        Bad,
    ),
    (
        "{backend: {docker: {registryAuthFile: /a, registryAuthSecret: {name: r, key: a}, hosts: [{name: h, endpoint: 'unix:///a'}]}}}",
        Bad,
    ),
    (
        "{backend: {docker: {registryAuthSecret: {name: r, key: ..}, hosts: [{name: h, endpoint: 'unix:///a'}]}}}",
        Bad,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a'}]}}, discovery: {consul: {address: 'http://a:8500', tokenSecret: {name: c, key: t}}}}",
        Good,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a'}]}}, discovery: {consul: {address: 'http://a:8500', tokenFile: /t, tokenSecret: {name: c, key: t}}}}",
        Bad,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a'}]}}, discovery: {consul: {servers: 1, tokenSecret: {name: c, key: t}}}}",
        Bad,
    ),
    (
        "{backend: {marathon: {urls: ['http://a:8080'], auth: {username: u, passwordSecret: {name: m, key: p}}}}}",
        Good,
    ),
    (
        "{backend: {marathon: {urls: ['http://a:8080'], auth: {tokenSecret: {name: m, key: t}}}}}",
        Good,
    ),
    ("{backend: {marathon: {urls: ['http://a:8080'], auth: {username: u}}}}", Bad),
    (
        "{backend: {marathon: {urls: ['http://a:8080'], auth: {username: u, passwordFile: /p, passwordSecret: {name: m, key: p}}}}}",
        Bad,
    ),
    (
        "{backend: {marathon: {urls: ['http://a:8080'], auth: {tokenFile: /t, tokenSecret: {name: m, key: t}}}}}",
        Bad,
    ),
    ("{backend: {docker: {hosts: []}}}", Bad),
    ("{backend: {}}", Bad),
    ("{backend: {docker: {hosts: [{name: h, endpoint: 'http://a'}]}}}", Bad),
    ("{backend: {docker: {hosts: [{name: h, endpoint: 'tcp://10.0.0.1'}]}}}", Bad),
    ("{backend: {docker: {hosts: [{name: h, endpoint: 'tcp://me@10.0.0.1:2375'}]}}}", Bad),
    ("{backend: {docker: {hosts: [{name: h, endpoint: 'ssh://me:secret@10.0.0.1'}]}}}", Bad),
    ("{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a/../b'}]}}}", Bad),
    ("{backend: {docker: {hosts: [{name: h, endpoint: 'ssh://10.0.0.1:0'}]}}}", Beyond(FORM)),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a'}, {name: h, endpoint: 'unix:///b'}]}}}",
        Bad,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a'}, {name: i, endpoint: 'unix:///a'}]}}}",
        Beyond(FORM),
    ),
    ("{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a', labels: {host: x}}]}}}", Bad),
    ("{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a', labels: {'-': x}}]}}}", Bad),
    ("{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a', tls: {caFile: /a}}]}}}", Bad),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'tcp://a:1', tls: {caFile: /a, certFile: /b}}]}}}",
        Bad,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'tcp://a:1', tls: {caFile: /a/../b, certFile: /b, keyFile: /c}}]}}}",
        Bad,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'tcp://a:1', tls: {caFile: /a}}]}}}",
        Beyond(ABILITY),
    ),
    ("{backend: {marathon: {urls: ['http://a:8080']}}}", Good),
    ("{backend: {marathon: {urls: []}}}", Bad),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a'}]}}, limits: {prune: {maxPercent: 101}}}",
        Bad,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a'}]}}, limits: {parallelStartsPerHost: 4}}",
        Good,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a'}]}}, discovery: {consul: {servers: 1, publish: {ui: 65535}}}}",
        Good,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a'}]}}, discovery: {consul: {servers: 3, publish: {ui: 65534}}}}",
        Bad,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a'}]}}, discovery: {consul: {servers: 2}}}",
        Bad,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a'}]}}, discovery: {consul: {servers: 1, network: bridge}}}",
        Bad,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a'}]}}, discovery: {consul: {servers: 1, address: 'http://a'}}}",
        Bad,
    ),
    (
        "{backend: {docker: {hosts: [{name: h, endpoint: 'unix:///a'}]}}, discovery: {consul: {address: 'http://a:8500', agentPort: 8500}}}",
        Good,
    ),
];
