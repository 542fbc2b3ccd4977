//! The inside of a container.

use std::collections::BTreeMap;
use std::sync::Arc;

use evenkeel::backend::docker::DockerContainer;
use evenkeel::edge::Container;
use evenkeel::error::Remedy;
use evenkeel::model::{InstanceId, Seen};
use evenkeel_tests::conformance::until;
use evenkeel_tests::container::{contract, inside, reach};
use evenkeel_tests::docker::{Rig, h1, local};

#[tokio::test]
async fn every_call_reaches_inside() {
    let rig = Rig::new().await;
    rig.watch(&[("h1", local())], BTreeMap::new());
    until(&rig.backend, &h1(), "the host answers", |v| v.seen == Seen::Now).await;
    let id = inside(&rig, "in").await;
    contract(&*reach(&rig, &id)).await;
}

#[tokio::test]
async fn what_is_not_there_is_an_error() {
    let rig = Rig::new().await;
    rig.watch(&[("h1", local())], BTreeMap::new());
    until(&rig.backend, &h1(), "the host answers", |v| v.seen == Seen::Now).await;
    let gone = reach(&rig, "0123456789abcdef");
    assert_eq!(gone.exec(&["true"]).await.unwrap_err().remedy, Remedy::Reobserve);
    assert!(gone.converse(&["cat"]).await.is_err());
    assert!(gone.signal("USR1").await.is_err());
    let nowhere = DockerContainer::new(Arc::new(|| None), InstanceId("x".into()));
    assert_eq!(nowhere.processes().await.unwrap_err().remedy, Remedy::Retry);
}
