//! What every API server shows, so that the others have something to differ from.

use std::time::Duration;

use evenkeel_tests::agent::TOY_2;
use evenkeel_tests::kube::rig::Rig;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn apply_scale_roll_and_delete() {
    let rig = Rig::on_cluster().await;
    let mut agent = rig.confined();
    let web = rig.runs("web", 2);
    assert_eq!(rig.bed.ids(&web).await.len(), 2);
    rig.scales(&web, 3).await;
    let patch = json!({"spec": {"image": TOY_2}}).to_string();
    rig.on(&["patch", "--type=merge", "-p", &patch], &web, &[]);
    rig.until(&web, "/status/appliedRevision", json!("3")).await;
    rig.ready(&web);
    let told = rig.on(&["describe"], &web, &[]);
    assert!(told.contains("3 of 3 available") && told.contains("Events:"), "{told}");
    rig.quiet(&web, Duration::from_secs(5)).await;
    rig.on(&["delete", "--timeout=90s"], &web, &[]);
    assert!(rig.bed.of(&web).await.is_empty(), "it went before what it ran");
    assert!(agent.runs());
}
