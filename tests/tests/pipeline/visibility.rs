//! How soon an event is seen.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use fleetlog_load_tests::sender::quantile;
use fleetlog_load_tests::visibility::Probe;
use fleetlog_tests::{Project, SOON, System, say};

pub(crate) async fn an_accepted_event_is_soon_visible_to_a_query(system: Arc<System>) -> Result<()> {
    let project = Project::create(&system, "visibility").await?;
    let probe = Probe {
        ingest: system.addresses().ingest.clone(),
        query: system.addresses().query.clone(),
        key: project.admin.key().to_owned(),
        pause: Duration::from_millis(20),
        patience: SOON,
    };
    let times = probe.run(0x7157, 10).await?;
    ensure!(times.len() == 10, "{} events", times.len());
    // Figures, not promises: this machine is busy with other tests.
    say(&format!(
        "accepted to visible: p50 {:.2?}, most {:.2?}",
        quantile(&times, 0.5),
        quantile(&times, 1.0)
    ));
    Ok(())
}
