//! One line, one mistake: what a person is told, and where.

use super::*;

#[track_caller]
pub(super) fn all(table: &[(String, &str)]) {
    for (yaml, expect) in table {
        check(yaml, expect);
    }
}

pub(super) fn raw(text: &str) -> String {
    text.to_owned()
}

#[test]
fn yaml_that_is_none() {
    all(&[
        (raw(""), ""),
        (raw("# nothing\n---\n---\n...\n"), ""),
        (
            raw("a: b: c"),
            "a.yaml:1:5: not valid YAML: mapping values are not allowed in this context",
        ),
        (
            raw("a:\n\t- b"),
            "a.yaml:2:2: not valid YAML: tabs disallowed within this context (block indentation)
               hint: indent with spaces: YAML takes no tabs there",
        ),
        (
            raw("a: [1, 2"),
            "a.yaml:1:8: not valid YAML: while parsing a flow sequence, expected ',' or ']'",
        ),
        (
            raw("a: \"x"),
            "a.yaml:1:4: not valid YAML: while scanning a quoted scalar, found unexpected end of stream",
        ),
        (
            raw("a: {b: c]"),
            "a.yaml:1:9: not valid YAML: while parsing a flow mapping, did not find expected ',' or '}'",
        ),
        (raw("%YAML 1.2\n"), "a.yaml:1:9: not valid YAML: did not find expected <document start>"),
        (raw("a: *b"), "a.yaml:1:4: not valid YAML: while parsing node, found unknown anchor"),
        (
            raw("apiVersion: v1\nkind: &x A\n---\napiVersion: v1\nkind: *x"),
            "a.yaml:5:7: an alias of something that is not complete before it",
        ),
        (raw("a: &x [*x]"), "a.yaml:1:8: an alias of something that is not complete before it"),
        (
            raw("spec: {{ .Values.spec }}"),
            "a.yaml:1:1: apiVersion is missing
               hint: write apiVersion: evenkeel.dev/v1alpha1
               a.yaml:1:8: a key must be text
               hint: where this is a template: evenkeel reads only what a template has rendered",
        ),
        (
            raw("<<<<<<< HEAD\na: b\n=======\na: c\n>>>>>>> x\n"),
            "a.yaml:2:2: not valid YAML: mapping values are not allowed in this context
               hint: this looks like an unresolved merge conflict",
        ),
        (
            raw("? "),
            "a.yaml:1:1: apiVersion is missing
             hint: write apiVersion: evenkeel.dev/v1alpha1
             a.yaml:1:2: a key must be text
             hint: quote it",
        ),
        (
            raw("- a\n- b"),
            "a.yaml:1:1: expected a document with apiVersion and kind, found a list
               hint: separate documents by a line that holds ---",
        ),
        (
            raw("hello"),
            r#"a.yaml:1:1: expected a document with apiVersion and kind, found the text "hello""#,
        ),
        (
            raw("12"),
            "a.yaml:1:1: expected a document with apiVersion and kind, found the number 12",
        ),
    ]);
}

#[test]
fn what_yaml_has_and_we_do_not() {
    all(&[
        (
            service("{image: a, replicas: 1, replicas: 2}"),
            r#"a.yaml:4:31: ScalingService web: the key "replicas" is given twice: first at line 4, column 18"#,
        ),
        (
            service("{image: a, image: b}\nspec: {}"),
            r#"a.yaml:4:18: ScalingService web: the key "image" is given twice: first at line 4, column 8
               a.yaml:5:1: ScalingService web: the key "spec" is given twice: first at line 4, column 1"#,
        ),
        (
            service("{image: !!binary aGk=}"),
            r#"a.yaml:4:15: ScalingService web: the tag "!!binary" is not supported
               hint: leave the tag out; quote a value to make it text"#,
        ),
        (
            service("{image: !Ref x}"),
            r#"a.yaml:4:15: ScalingService web: the tag "!Ref" is not supported
               hint: leave the tag out; quote a value to make it text"#,
        ),
        (service("{image: !!str a}"), ""),
        (
            raw(
                "x: &d {image: a}\napiVersion: evenkeel.dev/v1alpha1\nkind: ScalingService\nmetadata: {name: web}\nspec: {<<: *d}",
            ),
            "a.yaml:1:1: ScalingService web: the field x is unknown
               hint: known fields: apiVersion, kind, metadata, spec
               a.yaml:5:7: ScalingService web: spec.image is missing
               a.yaml:5:8: ScalingService web: merge keys (<<) are not supported
               hint: write the fields out, or use an alias for one whole value",
        ),
        (
            service("{image: a, 1: b, true: c, null: d, [x]: e, {y: z}: f}"),
            r#"a.yaml:4:18: ScalingService web: the key 1 is not text
               hint: quote it: "1"
               a.yaml:4:24: ScalingService web: the key true is not text
               hint: quote it: "true"
               a.yaml:4:33: ScalingService web: a key must be text
               hint: quote it
               a.yaml:4:42: ScalingService web: a key must be text
               hint: quote it
               a.yaml:4:50: ScalingService web: a key must be text
               hint: where this is a template: evenkeel reads only what a template has rendered"#,
        ),
        (
            service("{image: \"a\\0b\"}"),
            "a.yaml:4:15: ScalingService web: a text may not hold the character NUL",
        ),
        (service("{image: &i a, args: [*i, *i]}"), ""),
    ]);
}

#[test]
fn what_yaml_1_1_read_otherwise() {
    all(&[
        (
            service(
                "{image: a, env: [{name: A, value: no}, {name: B, value: on}, {name: C, value: 12:30}]}",
            ),
            "",
        ),
        (
            service(
                "{image: a, env: [{name: A, value: true}, {name: B, value: 0123}, {name: C, value: 1e3}, {name: D, value: ~}, {name: E, value: 1.0}]}",
            ),
            r#"a.yaml:4:41: ScalingService web: spec.env[0].value: expected text, found the boolean true
               hint: quote it: "true"
               a.yaml:4:65: ScalingService web: spec.env[1].value: expected text, found the number 0123
               hint: quote it: "0123"
               a.yaml:4:89: ScalingService web: spec.env[2].value: expected text, found the number 1e3
               hint: quote it: "1e3"
               a.yaml:4:105: ScalingService web: spec.env[3].value: expected text, found nothing
               hint: give it a value, or leave the field out
               a.yaml:4:133: ScalingService web: spec.env[4].value: expected text, found the number 1.0
               hint: quote it: "1.0""#,
        ),
        (
            service("{image: a, replicas: 010}"),
            "a.yaml:4:28: ScalingService web: spec.replicas: 010 could be meant as octal or as decimal
               hint: write 10 or 0o10",
        ),
        (service("{image: a, replicas: 0o10}"), ""),
        (service("{image: a, replicas: 0x10}"), ""),
        (
            service("{image: a, replicas: 1e3}"),
            "a.yaml:4:28: ScalingService web: spec.replicas: expected a whole number, found the number 1e3",
        ),
        (
            service("{image: a, replicas: 1_000}"),
            r#"a.yaml:4:28: ScalingService web: spec.replicas: expected a whole number, found the text "1_000""#,
        ),
        (
            service("{image: a, suspend: yes}"),
            r#"a.yaml:4:27: ScalingService web: spec.suspend: expected true or false, found the text "yes"
               hint: write true, without quotes"#,
        ),
        (
            service("{image: a, suspend: off}"),
            r#"a.yaml:4:27: ScalingService web: spec.suspend: expected true or false, found the text "off"
               hint: write false, without quotes"#,
        ),
        (
            service("{image: 1.2}"),
            r#"a.yaml:4:15: ScalingService web: spec.image: expected an image such as "nginx:1.28" or "registry.example:5000/app@sha256:…", found the number 1.2
               hint: quote it: "1.2""#,
        ),
    ]);
}

#[test]
fn whose_document_it_is() {
    let doc = |version: &str, kind: &str| {
        format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: web}}\nspec: {{image: a}}")
    };
    all(&[
        (doc("apps/v1", "Deployment"), ""),
        (doc("v1", "ConfigMap"), ""),
        (doc("kustomize.config.k8s.io/v1beta1", "Kustomization"), ""),
        (doc("agones.dev/v1", "Fleet"), ""),
        (
            raw("kind: Fleet"),
            "a.yaml:1:1: apiVersion is missing
               hint: write apiVersion: evenkeel.dev/v1alpha1",
        ),
        (
            raw("apiVersion: evenkeel.dev/v1alpha1"),
            "a.yaml:1:1: kind is missing
               hint: known kinds: Fleet, LoadBalancer, ScalingService",
        ),
        (
            raw("services: {web: {image: a}}"),
            "a.yaml:1:1: apiVersion is missing
               hint: write apiVersion: evenkeel.dev/v1alpha1",
        ),
        (
            doc("evenkeel.dev/v1", "ScalingService"),
            r#"a.yaml:1:13: ScalingService web: the version "v1" of evenkeel.dev is unknown
               hint: write apiVersion: evenkeel.dev/v1alpha1"#,
        ),
        (
            doc("evenkeel.dev", "ScalingService"),
            r#"a.yaml:1:13: ScalingService web: the apiVersion "evenkeel.dev" is unknown
               hint: did you mean "evenkeel.dev/v1alpha1"?"#,
        ),
        (
            doc("evenkeel.io/v1alpha1", "ScalingService"),
            r#"a.yaml:1:13: ScalingService web: the apiVersion "evenkeel.io/v1alpha1" is unknown
               hint: did you mean "evenkeel.dev/v1alpha1"?"#,
        ),
        (
            doc("evenkeal.dev/v1alpha1", "ScalingService"),
            r#"a.yaml:1:13: ScalingService web: the apiVersion "evenkeal.dev/v1alpha1" is unknown
               hint: did you mean "evenkeel.dev/v1alpha1"?"#,
        ),
        (
            doc("evenkeel.dev/v1alpha1", "ScalingServices"),
            r#"a.yaml:2:7: the kind "ScalingServices" is unknown
               hint: did you mean "ScalingService"?"#,
        ),
        (
            doc("evenkeel.dev/v1alpha1", "Deployment"),
            r#"a.yaml:2:7: the kind "Deployment" is unknown
               hint: known kinds: Fleet, LoadBalancer, ScalingService"#,
        ),
        (doc("1", "ScalingService"), "a.yaml:1:13: apiVersion: expected text, found the number 1"),
        (
            raw(
                "apiVersion: v1\nkind: List\nitems: [{apiVersion: evenkeel.dev/v1alpha1, kind: Fleet}]",
            ),
            "a.yaml:2:7: a list of documents is not read
               hint: write each item as a document of its own, separated by ---",
        ),
    ]);
}

#[test]
fn names() {
    let named = |name: &str| {
        format!(
            "apiVersion: evenkeel.dev/v1alpha1\nkind: ScalingService\nmetadata: {{name: {name}}}\nspec: {{image: a}}"
        )
    };
    all(&[
        (
            named("../etc"),
            r#"a.yaml:3:18: metadata.name: expected a name of lower-case letters, digits and '-', beginning and ending with a letter or digit, found "../etc""#,
        ),
        (
            named("a/b"),
            r#"a.yaml:3:18: metadata.name: expected a name of lower-case letters, digits and '-', beginning and ending with a letter or digit, found "a/b""#,
        ),
        (
            named("\"a\\nb\""),
            r#"a.yaml:3:18: metadata.name: expected a name of lower-case letters, digits and '-', beginning and ending with a letter or digit, found "a\nb""#,
        ),
        (
            named("\"a\\eb\\u202eb\""),
            r#"a.yaml:3:18: metadata.name: expected a name of lower-case letters, digits and '-', beginning and ending with a letter or digit, found "a\u{1b}b\u{202e}b""#,
        ),
        (
            named(&"x".repeat(300)),
            "a.yaml:3:18: metadata.name: has 300 characters, and 63 are the most",
        ),
        (named(&"x".repeat(63)), ""),
        (
            named("Web"),
            r#"a.yaml:3:18: metadata.name: expected a name of lower-case letters, digits and '-', beginning and ending with a letter or digit, found "Web""#,
        ),
        (
            named("12"),
            r#"a.yaml:3:18: metadata.name: expected a name of lower-case letters, digits and '-', beginning and ending with a letter or digit, found the number 12
               hint: quote it: "12""#,
        ),
        (
            named("\"\""),
            r#"a.yaml:3:18: metadata.name: expected a name of lower-case letters, digits and '-', beginning and ending with a letter or digit, found """#,
        ),
        (
            named(""),
            "a.yaml:3:12: metadata.name: expected a name of lower-case letters, digits and '-', beginning and ending with a letter or digit, found nothing
               hint: give it a value, or leave the field out",
        ),
        (
            raw("apiVersion: evenkeel.dev/v1alpha1\nkind: ScalingService\nspec: {image: a}"),
            "a.yaml:1:1: metadata is missing",
        ),
    ]);
}

#[test]
fn between_documents() {
    let hosts = "[{name: h1, endpoint: \"unix:///a\", labels: {zone: a}}, {name: h2, endpoint: \"unix:///b\", labels: {zone: b}}]";
    let shop = fleet("shop", hosts);
    let with = |services: &[(&str, &str)]| {
        let mut out = shop.clone();
        for (name, spec) in services {
            out += "---\n";
            out += &service(spec).replace("web", name);
        }
        out
    };
    all(&[
        (
            with(&[("web", "{image: a, fleet: shp}")]),
            r#"a.yaml:9:25: ScalingService web: spec.fleet: no document defines the fleet shp
               hint: did you mean "shop"?"#,
        ),
        (
            with(&[("web", "{image: a, fleet: production}")]),
            "a.yaml:9:25: ScalingService web: spec.fleet: no document defines the fleet production
               hint: known fleets: shop",
        ),
        (
            with(&[("web", "{image: a, fleet: shop}"), ("web", "{image: b, fleet: shop}")]),
            "a.yaml:8:18: ScalingService web: defined again at a.yaml:13:18
               hint: rename or remove one; until then neither counts
             a.yaml:13:18: ScalingService web: defined a second time: first at a.yaml:8:18
               hint: rename or remove one; until then neither counts",
        ),
        (
            with(&[("web", "{image: a, fleet: shop, placement: {constraints: [zone == c]}}")]),
            "a.yaml:9:57: ScalingService web: spec.placement.constraints[0]: no host of the fleet shop is zone == c
               hint: zone is one of a, b",
        ),
        (
            with(&[("web", "{image: a, fleet: shop, placement: {constraints: [disk == fast]}}")]),
            "a.yaml:9:57: ScalingService web: spec.placement.constraints[0]: no host of the fleet shop is disk == fast
               hint: known labels: zone",
        ),
        (
            with(&[(
                "web",
                "{image: a, fleet: shop, placement: {constraints: [zone == a, zone == b]}}",
            )]),
            "a.yaml:9:56: ScalingService web: spec.placement.constraints: no host of the fleet shop is all of that",
        ),
        (
            with(&[(
                "web",
                "{image: a, fleet: shop, placement: {constraints: [disk != slow, host == h1]}}",
            )]),
            "",
        ),
        (
            with(&[
                (
                    "web",
                    "{image: a, fleet: shop, ports: [{name: http, containerPort: 80, publish: 8080}]}",
                ),
                (
                    "api",
                    "{image: b, fleet: shop, ports: [{name: http, containerPort: 80, publish: 8080}]}",
                ),
            ]),
            "a.yaml:9:80: ScalingService web: spec.ports[0].publish: 8080 on the host h1 is also published by ScalingService api (8080 at a.yaml:14:80)
               hint: choose another port, or keep the services on different hosts by placement.constraints
               a.yaml:14:80: ScalingService api: spec.ports[0].publish: 8080 on the host h1 is also published by ScalingService web (8080 at a.yaml:9:80)
               hint: choose another port, or keep the services on different hosts by placement.constraints",
        ),
        (
            with(&[
                (
                    "web",
                    "{image: a, fleet: shop, replicas: 3, ports: [{name: http, containerPort: 80, publish: 8080}]}",
                ),
                (
                    "api",
                    "{image: b, fleet: shop, ports: [{name: http, containerPort: 80, publish: 8082}]}",
                ),
            ]),
            "a.yaml:9:93: ScalingService web: spec.ports[0].publish: 8080 to 8082 on the host h1 is also published by ScalingService api (8082 at a.yaml:14:80)
               hint: instances on one host count up from publish: leave room for all of them, set placement.maxPerHost, or keep the services on different hosts
               a.yaml:14:80: ScalingService api: spec.ports[0].publish: 8082 on the host h1 is also published by ScalingService web (8080 to 8082 at a.yaml:9:93)
               hint: instances on one host count up from publish: leave room for all of them, set placement.maxPerHost, or keep the services on different hosts",
        ),
        (
            with(&[
                (
                    "web",
                    "{image: a, fleet: shop, replicas: 3, ports: [{name: http, containerPort: 80, publish: 8080}]}",
                ),
                (
                    "api",
                    "{image: b, fleet: shop, ports: [{name: http, containerPort: 80, publish: 8083}]}",
                ),
            ]),
            "",
        ),
        (
            with(&[
                (
                    "web",
                    "{image: a, fleet: shop, replicas: 0, ports: [{name: http, containerPort: 80, publish: 8080}]}",
                ),
                (
                    "api",
                    "{image: b, fleet: shop, ports: [{name: http, containerPort: 80, publish: 8080}]}",
                ),
            ]),
            "",
        ),
        (
            with(&[
                (
                    "web",
                    "{image: a, fleet: shop, placement: {constraints: [zone == a]}, ports: [{name: http, containerPort: 80, publish: 8080}]}",
                ),
                (
                    "api",
                    "{image: b, fleet: shop, placement: {constraints: [zone == b]}, ports: [{name: http, containerPort: 80, publish: 8080}]}",
                ),
            ]),
            "",
        ),
        (
            with(&[
                (
                    "web",
                    "{image: a, fleet: shop, ports: [{name: dns, containerPort: 53, publish: 53}]}",
                ),
                (
                    "api",
                    "{image: b, fleet: shop, ports: [{name: dns, protocol: udp, containerPort: 53, publish: 53}]}",
                ),
            ]),
            "",
        ),
        (
            with(&[(
                "web",
                "{image: a, fleet: shop, replicas: 2, ports: [{name: http, containerPort: 80, publish: 8080}, {name: admin, containerPort: 81, publish: 8081}]}",
            )]),
            "a.yaml:9:93: ScalingService web: spec.ports[0].publish: 8080 to 8081 meets spec.ports[1].publish (8081 to 8082): on one host each instance takes the next port
               hint: instances on one host count up from publish: leave room for all of them, set placement.maxPerHost, or keep the services on different hosts
               a.yaml:9:142: ScalingService web: spec.ports[1].publish: 8081 to 8082 meets spec.ports[0].publish (8080 to 8081): on one host each instance takes the next port
               hint: instances on one host count up from publish: leave room for all of them, set placement.maxPerHost, or keep the services on different hosts",
        ),
        (
            with(&[(
                "web",
                "{image: a, fleet: shop, replicas: 2, placement: {maxPerHost: 1}, ports: [{name: http, containerPort: 80, publish: 8080}, {name: admin, containerPort: 81, publish: 8081}]}",
            )]),
            "",
        ),
        (
            with(&[(
                "web",
                "{image: a, fleet: shop, replicas: 10, ports: [{name: http, containerPort: 80, publish: 65530}]}",
            )]),
            "a.yaml:9:94: ScalingService web: spec.ports[0].publish: 10 instances on one host would publish 65530 to 65539, and 65535 is the last port",
        ),
        (
            with(&[(
                "web",
                "{image: a, fleet: shop, env: [{name: A, secret: {name: app, key: tokn}}, {name: B, secret: {name: app, key: ..}}]}",
            )]),
            r#"a.yaml:9:115: ScalingService web: spec.env[1].secret.key: expected the key of a secret: letters, digits, '-', '_' and '.', found "..""#,
        ),
    ]);
}

#[test]
fn what_nobody_could_ask_for_its_health_is_refused() {
    let far = fleet("shop", "[{name: far, endpoint: \"tcp://10.0.0.1:2375\"}]");
    let web = |port: &str| {
        let spec =
            format!("{{image: a, fleet: shop, ports: [{port}], health: {{http: {{port: http}}}}}}");
        format!("{far}---\n{}", service(&spec))
    };
    check(
        &web("{name: http, containerPort: 80}"),
        "a.yaml:9:81: ScalingService web: spec.health: port 80 is asked by the agent, which reaches it on the remote host far only where it is published
         hint: add publish to the port, or use health.command, which the engine runs itself",
    );
    check(&web("{name: http, containerPort: 80, publish: 8080}"), "");
}
