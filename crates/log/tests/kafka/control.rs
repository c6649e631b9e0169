//! Keys, from their creation to their revocation, as every process sees them.

use fleetlog_log::{AuthError, ControlView, ControlWriter};
use fleetlog_runtime::Shutdown;
use fleetlog_schemas::control::Role;

use crate::node::{Node, on_kafka};

/// Waits until the view's answer satisfies the condition; the records arrive by themselves.
async fn until<T>(mut answer: impl FnMut() -> T, mut holds: impl FnMut(&T) -> bool) -> T {
    loop {
        let now = answer();
        if holds(&now) {
            return now;
        }
        tokio::task::yield_now().await;
    }
}

fn open(node: &Node, shutdown: &Shutdown) -> ControlView {
    let (view, follower) = ControlView::open(&node.config()).unwrap();
    node.spawn(follower.follow(shutdown.clone()));
    view
}

#[test]
fn a_key_works_from_creation_until_revocation_in_processes_that_were_already_running() {
    on_kafka(|node| async move {
        let shutdown = Shutdown::new();
        let view = open(node, &shutdown);
        assert_eq!(view.authenticate("fl_a_b"), Err(AuthError::NotReady));
        view.caught_up().await;
        assert_eq!(view.authenticate("fl_a_b"), Err(AuthError::Unknown));
        assert_eq!(view.authenticate("nonsense"), Err(AuthError::Malformed));

        let writer = ControlWriter::new(&node.config()).unwrap();
        let new = writer.create_key("p1", Role::Ingest, "a test", 1).await.unwrap();
        let text = new.text.expose();
        let principal = until(|| view.authenticate(text), Result::is_ok).await.unwrap();
        assert_eq!((&*principal.project_id, principal.role), ("p1", Role::Ingest));
        assert_eq!(view.authenticate(&format!("{text}x")), Err(AuthError::Unknown));
        let (_, secret) = text.strip_prefix("fl_").unwrap().split_once('_').unwrap();
        assert_eq!(view.authenticate_pair(&new.key.key_id, secret), Ok(principal));

        assert_eq!(writer.revoke_key("nobody", 2).await.unwrap(), None);
        let revoked = writer.revoke_key(&new.key.key_id, 2).await.unwrap().unwrap();
        assert_eq!(revoked.revoked_at_ms, Some(2));
        until(|| view.authenticate(text) == Err(AuthError::Revoked), |revoked| *revoked).await;
        assert!(writer.keys().await.unwrap().contains(&revoked));

        let late = open(node, &shutdown);
        late.caught_up().await;
        assert_eq!(late.authenticate(text), Err(AuthError::Revoked));
        shutdown.trigger();
    });
}
