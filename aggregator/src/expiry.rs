//! Which groups have facts that may have expired, and what is stored of them.
//!
//! A group is asked for once after the edge of what is held has moved, which is once a day: whatever it has seen or will
//! see until then is held. So the usual group, which is younger than that, costs one key of one statement.

use std::collections::{HashMap, HashSet};

use fleetlog_store::derived::{GroupFilter, GroupKey, TraceShare};
use fleetlog_store::{Store, StoreError};

use crate::derive::Stored;

/// Groups remembered. A forgotten one is asked for again, which is harmless.
const REMEMBERED: usize = 200_000;

/// Groups all of whose facts are held.
#[derive(Debug, Default)]
struct Whole {
    edge: i64,
    groups: HashSet<GroupKey>,
}

impl Whole {
    /// Those of these groups that are not known to be whole as of an edge.
    fn unknown(&mut self, edge: i64, keys: &[GroupKey]) -> Vec<GroupKey> {
        if edge != self.edge {
            self.groups.clear();
            self.edge = edge;
        }
        keys.iter().filter(|key| !self.groups.contains(*key)).cloned().collect()
    }

    /// All of `asked` but `outlived` are whole.
    fn are(&mut self, asked: Vec<GroupKey>, outlived: &[GroupKey]) {
        if self.groups.len() + asked.len() > REMEMBERED {
            self.groups.clear();
        }
        let outlived: HashSet<&GroupKey> = outlived.iter().collect();
        self.groups.extend(asked.into_iter().filter(|key| !outlived.contains(key)));
    }
}

/// Finds what is stored of groups that have outlived facts.
#[derive(Debug, Default)]
pub(crate) struct Expiry(Whole);

impl Expiry {
    /// What stands for the expired facts of the filter's groups, by group. Ask after the facts are read, and before
    /// anything is written.
    ///
    /// # Errors
    /// Whatever the store says.
    pub(crate) async fn stored(
        &mut self,
        store: &Store,
        filter: &GroupFilter,
        shares: &HashMap<(String, String), Vec<TraceShare>>,
    ) -> Result<HashMap<GroupKey, Stored>, StoreError> {
        let edge = store.expiry_edge().await?;
        let asked = self.0.unknown(edge, &filter.keys);
        if asked.is_empty() {
            return Ok(HashMap::new());
        }
        let outlived = store.groups_before(edge, &asked).await?;
        self.0.are(asked, &outlived);
        if outlived.is_empty() {
            return Ok(HashMap::new());
        }
        let mut traces: Vec<(&str, &str)> = Vec::new();
        for key in &outlived {
            let of_group = shares.get(&(key.project_id.clone(), key.id.clone())).into_iter().flatten();
            traces.extend(of_group.map(|share| (share.project_id.as_str(), share.trace_id.as_str())));
        }
        traces.sort_unstable();
        traces.dedup();
        let groups = store.outlived_groups(edge, &outlived, &traces).await?;
        let mut stored: HashMap<GroupKey, Stored> = groups
            .into_iter()
            .map(|group| (group.key.clone(), Stored { group, edge, since: None, shares_since: Vec::new() }))
            .collect();
        let (keys, since) =
            stored.values().map(|of| (of.group.key.clone(), of.group.session.last_received_at)).unzip();
        let since = GroupFilter { keys, since, ..filter.clone() };
        if since.keys.is_empty() {
            return Ok(stored);
        }
        let key = |project_id: &str, id: &str| GroupKey {
            project_id: project_id.to_owned(),
            kind: filter.kind,
            id: id.to_owned(),
        };
        for summary in store.summaries(&since).await? {
            if let Some(stored) = stored.get_mut(&key(&summary.project_id, &summary.group_id)) {
                stored.since = Some(summary);
            }
        }
        if !traces.is_empty() {
            for share in store.trace_shares(&since).await? {
                if let Some(stored) = stored.get_mut(&key(&share.project_id, &share.group_id)) {
                    stored.shares_since.push(share);
                }
            }
        }
        Ok(stored)
    }
}

#[cfg(test)]
mod tests {
    use fleetlog_store::GroupKind;

    use super::*;

    #[test]
    fn a_group_is_asked_for_once_until_the_edge_moves() {
        let key =
            |id: &str| GroupKey { project_id: "p".to_owned(), kind: GroupKind::Session, id: id.to_owned() };
        let (young, old) = (key("young"), key("old"));
        let both = [young.clone(), old.clone()];
        let mut whole = Whole::default();
        assert_eq!(whole.unknown(1, &both).len(), 2);
        whole.are(both.to_vec(), std::slice::from_ref(&old));
        assert_eq!(whole.unknown(1, &both), [old]);
        assert_eq!(whole.unknown(2, &both).len(), 2);
    }
}
