//! Whatever an answer holds, it is read without harm.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::backend::marathon::encode::encode;
use crate::backend::marathon::events::Look;
use crate::backend::marathon::sse::Came;
use crate::backend::marathon::task::{Checks, Reach, resources};
use crate::backend::marathon::view_of;
use crate::backend::marathon::wire::{App, Version};
use crate::model::app::compare::differences;
use crate::model::app::normal::normalise;
use crate::model::{AppId, FleetName, OwnerId};

/// Names that mean something somewhere.
const NAMES: &str = "(cmd|args|env|labels|cpus|mem|constraints|dependencies|uris|ports|fetch|uri|extract|container|type|\
    docker|image|network|portMappings|parameters|key|value|volumes|persistent|external|networks|mode|name|ipAddress|\
    networkName|discovery|portDefinitions|port|number|containerPort|hostPort|servicePort|protocol|healthChecks|path|portIndex|\
    command|readinessChecks|httpStatusCodesForReady|upgradeStrategy|minimumHealthCapacity|unreachableStrategy|\
    inactiveAfterSeconds|killSelection|instances|version|versionInfo|lastConfigChangeAt|tasks|id|state|host|ipAddresses|\
    healthCheckResults|alive|consecutiveFailures|deployments|lastTaskFailure|requirePorts|check|http|secrets|x)";

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| json!(f)),
        "(HTTP|MESOS_TCP|COMMAND|host|container|container/bridge|BRIDGE|USER|MESOS|tcp,udp|disabled|/a|../b|TASK_RUNNING|.{0,4})"
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(NAMES, inner, 0..6)
                .prop_map(|m| m.into_iter().collect::<Map<_, _>>().into()),
        ]
    })
}

fn objects() -> impl Strategy<Value = Value> {
    prop::collection::btree_map(NAMES, values(), 0..8)
        .prop_map(|m| m.into_iter().collect::<Map<_, _>>().into())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_app_has_one_form(app in objects()) {
        let normal = normalise(&app);
        let again = normalise(&Value::Object(normal.0.clone()));
        prop_assert_eq!(&again.0, &normal.0);
        prop_assert_eq!(differences(&normal, &again), []);
        let id = AppId::new("/x").unwrap();
        for version in [Version(1, 4), Version(1, 11)] {
            let _ = encode(&normal, &id, 1, version);
        }
        let _ = (Reach::of(&normal), Checks::of(&normal), resources(&normal));
    }

    #[test]
    fn any_two_apps_are_compared(a in objects(), b in objects()) {
        let (a, b) = (normalise(&a), normalise(&b));
        let _ = differences(&a, &b);
    }

    #[test]
    fn any_answer_is_seen(mut app in objects(), tasks in prop::collection::vec(values(), 0..3)) {
        let (owner, fleet) = (OwnerId::new("o").unwrap(), FleetName::new("f").unwrap());
        if let Value::Object(fields) = &mut app {
            fields.insert("id".into(), "/x".into());
            fields.insert("tasks".into(), tasks.into());
            fields.insert("labels".into(), json!({"evenkeel.dev/owner": "o", "evenkeel.dev/fleet": "f",
                "evenkeel.dev/service": "x", "evenkeel.dev/hash": "00000000000000ab"}));
            prop_assert!(App::read(&app).is_some());
        }
        let answer = json!({"apps": [app, {}, null]}).to_string();
        let _ = view_of(&owner, &fleet, std::collections::BTreeMap::new(), answer.as_bytes());
    }

    #[test]
    fn any_event_is_heeded(kind in "(deployment_info|api_post_event|status_update_event|x)", data in values()) {
        let _ = Look::at(&Came::Event(kind, data.to_string()));
    }
}
