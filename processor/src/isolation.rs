//! A record that is decoded alone really is: nothing else is decoded meanwhile, so that it is not blamed for what another
//! partition's record did to the process ([`crate::suspicion`]).

use std::future::Future;

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Lets cycles decode side by side, or one record by itself.
#[derive(Debug, Default)]
pub(crate) struct Isolation(RwLock<()>);

impl Isolation {
    /// Waits until no record is decoded alone; `None` when `ended` comes first.
    ///
    /// # Cancellation
    /// Safe.
    pub(crate) async fn beside_others(
        &self,
        ended: impl Future<Output = ()>,
    ) -> Option<RwLockReadGuard<'_, ()>> {
        unless(ended, self.0.read()).await
    }

    /// Waits until nothing is decoded, and lets nothing else begin; `None` when `ended` comes first.
    ///
    /// # Cancellation
    /// Safe.
    pub(crate) async fn alone(&self, ended: impl Future<Output = ()>) -> Option<RwLockWriteGuard<'_, ()>> {
        unless(ended, self.0.write()).await
    }
}

async fn unless<T>(ended: impl Future<Output = ()>, turn: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        // What can be done at once is done, also while all of it ends.
        biased;
        turn = turn => Some(turn),
        () = ended => None,
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures::FutureExt;

    use super::*;

    #[test]
    fn while_one_record_is_decoded_alone_no_other_is() {
        let isolation = Isolation::default();
        let beside = isolation.beside_others(pending()).now_or_never().flatten();
        let also = isolation.beside_others(pending()).now_or_never().flatten();
        assert!(beside.is_some() && also.is_some(), "cycles go side by side");
        assert!(isolation.alone(pending()).now_or_never().is_none(), "it waits for them");
        drop((beside, also));
        let alone = isolation.alone(pending()).now_or_never().flatten();
        assert!(alone.is_some());
        assert!(isolation.beside_others(pending()).now_or_never().is_none());
        assert!(isolation.alone(pending()).now_or_never().is_none());
    }

    #[test]
    fn a_partition_that_goes_waits_for_nobody() {
        let isolation = Isolation::default();
        let _alone = isolation.alone(pending()).now_or_never().flatten().unwrap();
        assert!(matches!(isolation.beside_others(ready(())).now_or_never(), Some(None)));
        assert!(matches!(isolation.alone(ready(())).now_or_never(), Some(None)));
    }
}
