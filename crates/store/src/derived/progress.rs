//! How far the derivations have come, and what is not in them yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use clickhouse::query::Query;

use super::{GroupHour, GroupKey, facts::GroupFilter};
use crate::listed::Listed;
use crate::{GroupKind, Store, StoreError};

/// Up to where a partition of the events topic is derived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Partition of the events topic.
    pub partition: i32,
    /// Up to where.
    pub reflected: Reflected,
    /// Version of the groups that reflect it.
    pub version: u64,
}

/// Up to where the stored events of a partition are reflected in the groups. A project that has a group which cannot be
/// recomputed is behind the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reflected {
    /// Every event up to this offset is, of all projects but those behind.
    pub others: i64,
    /// The projects that are behind, and up to where each of them is.
    pub behind: BTreeMap<String, i64>,
}

impl Reflected {
    /// Up to one offset, whatever the project.
    pub const fn up_to(offset: i64) -> Self {
        Self { others: offset, behind: BTreeMap::new() }
    }

    /// Up to where every project is.
    pub fn all(&self) -> i64 {
        self.behind.values().copied().fold(self.others, i64::min)
    }

    /// Up to where a project is.
    pub fn of(&self, project_id: &str) -> i64 {
        self.behind.get(project_id).copied().unwrap_or(self.others)
    }
}

/// Up to which time of receipt the stored events are reflected in the derivations, nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DerivedThrough {
    others: i64,
    behind: HashMap<String, i64>,
}

impl DerivedThrough {
    /// Every stored event of the project that was received before this instant is.
    pub fn of(&self, project_id: &str) -> i64 {
        self.behind.get(project_id).map_or(self.others, |behind| self.others.min(*behind))
    }
}

#[derive(clickhouse::Row, serde::Serialize)]
struct ProgressRow {
    log_partition: i32,
    derived_offset: i64,
    others_offset: i64,
    behind: Vec<(String, i64)>,
    version: u64,
}

/// What is not known to be derived, as a condition.
pub(super) struct Beyond {
    /// For events of any project.
    others: String,
    /// Projects that are behind.
    projects: Listed<String>,
    /// Each of them with a partition, and the offset beyond which its events are not derived.
    places: Listed<String>,
    offsets: Listed<i64>,
    /// The lowest of these offsets; `None` when no project is behind.
    lowest: Option<i64>,
}

impl Beyond {
    fn new(progress: &HashMap<i32, Reflected>) -> Self {
        let known: Vec<i32> = progress.keys().copied().collect();
        let others: Vec<String> = progress
            .iter()
            // Numbers only: nothing to escape.
            .map(|(partition, reflected)| {
                format!("(log_partition = {partition} AND log_offset > {})", reflected.others)
            })
            .chain([format!("log_partition NOT IN {known:?}")])
            .collect();
        let behind = || {
            progress.iter().flat_map(|(partition, reflected)| {
                reflected.behind.iter().map(move |(project, offset)| (project, *partition, *offset))
            })
        };
        let projects: BTreeSet<String> = behind().map(|(project, _, _)| project.clone()).collect();
        // A project's id has no line break.
        let places = behind().map(|(project, partition, _)| format!("{project}\n{partition}"));
        Self {
            others: others.join(" OR "),
            projects: Listed::new("behind", "String", projects),
            places: Listed::new("behind_places", "String", places),
            offsets: Listed::new("behind_offsets", "Int64", behind().map(|(_, _, offset)| offset)),
            lowest: behind().map(|(_, _, offset)| offset).min(),
        }
    }

    /// The condition for events of projects that are behind; `None` when there are none.
    fn behind(&self) -> Option<String> {
        let lowest = self.lowest?;
        Some(format!(
            "(project_id IN {} AND log_offset > {lowest} AND log_offset > \
               transform(concat(toString(project_id), '\\n', toString(log_partition)), {}, {}, toInt64({})))",
            self.projects,
            self.places,
            self.offsets,
            i64::MAX
        ))
    }

    /// The condition for all of them.
    pub(super) fn condition(&self) -> String {
        match self.behind() {
            Some(behind) => format!("{} OR {behind}", self.others),
            None => self.others.clone(),
        }
    }

    /// Binds what the conditions name.
    pub(super) fn bind(&self, query: Query) -> Query {
        match self.lowest {
            Some(_) => self.offsets.bind(self.places.bind(self.projects.bind(query))),
            None => query,
        }
    }
}

/// A group with underived events, and one of its hours.
#[derive(Clone, Debug, PartialEq, Eq, clickhouse::Row, serde::Deserialize)]
pub struct UnderivedGroup {
    project_id: String,
    kind: String,
    id: String,
    /// Hour of the events.
    pub hour: i32,
    /// Day of receipt of the last of them, seconds since the epoch.
    pub received_day: u32,
    /// Their lowest offset.
    pub first_offset: i64,
}

/// The group of an event as expressions, in the order of [`UnderivedGroup`].
pub(super) const GROUP: &str = "project_id, \
   multiIf(session_id != '', 'session', trace_id != '', 'trace', 'loose') AS kind, \
   multiIf(session_id != '', session_id, trace_id != '', trace_id, \
     toString(intDiv(toUnixTimestamp64Nano(timestamp), 60000000000) * 60)) AS id";
/// The hour of an event as an expression.
pub(super) const HOUR: &str = "intDiv(toUnixTimestamp64Nano(timestamp), 3600000000000)";

impl UnderivedGroup {
    /// The group.
    pub fn key(&self) -> GroupKey {
        let kind = match self.kind.as_str() {
            "session" => GroupKind::Session,
            "trace" => GroupKind::Trace,
            _ => GroupKind::Loose,
        };
        GroupKey { project_id: self.project_id.clone(), kind, id: self.id.clone() }
    }

    /// The group and the hour.
    pub fn group_hour(&self) -> GroupHour {
        GroupHour { key: self.key(), hour: self.hour, received_day: self.received_day }
    }
}

impl Store {
    /// Records progress. Only after the groups and the usage of these versions are written.
    ///
    /// # Errors
    /// After an error the facts beyond what was recorded are derived again, which is harmless.
    pub async fn record_progress(&self, progress: &[Progress]) -> Result<(), StoreError> {
        if progress.is_empty() {
            return Ok(());
        }
        let mut insert = self.insert::<ProgressRow>("derivation_progress", None).await?;
        for at in progress {
            let row = ProgressRow {
                log_partition: at.partition,
                derived_offset: at.reflected.all(),
                others_offset: at.reflected.others,
                behind: at.reflected.behind.iter().map(|(id, offset)| (id.clone(), *offset)).collect(),
                version: at.version,
            };
            insert.write(&row).await.map_err(StoreError::from_client)?;
        }
        insert.end().await.map_err(StoreError::from_client)
    }

    /// Recorded progress by partition.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn progress(&self) -> Result<HashMap<i32, Reflected>, StoreError> {
        #[derive(clickhouse::Row, serde::Deserialize)]
        struct Recorded {
            log_partition: i32,
            others: i64,
            lagging: Vec<(String, i64)>,
        }
        let sql = format!(
            "SELECT log_partition, recorded.1 AS others, recorded.2 AS lagging FROM ( \
               SELECT log_partition, argMax((others_offset, behind), version) AS recorded \
               FROM {}.derivation_progress GROUP BY log_partition)",
            self.database()
        );
        let recorded = self.read_all::<Recorded>(&sql).await?.into_iter();
        let reflected = recorded.map(|Recorded { log_partition, others, lagging }| {
            (log_partition, Reflected { others, behind: lagging.into_iter().collect() })
        });
        Ok(reflected.collect())
    }

    /// Groups that have stored events of a partition beyond an offset and up to another, with the hours of these events:
    /// what a new owner of the partition has to touch again. Of these projects alone, or of all when none is named.
    ///
    /// At most `limit` rows, by their `first_offset`: when as many come back, groups that begin at the last one's
    /// `first_offset` or later may be missing, and the next call goes on from the offset before it.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn underived(
        &self,
        partition: i32,
        (beyond, through): (i64, i64),
        projects: &[String],
        limit: usize,
    ) -> Result<Vec<UnderivedGroup>, StoreError> {
        let projects = Listed::new("projects", "String", projects.iter().map(String::as_str));
        let of_these =
            if projects.is_empty() { String::new() } else { format!(" AND project_id IN {projects}") };
        let sql = format!(
            "SELECT {GROUP}, toInt32({HOUR}) AS hour, \
               toUnixTimestamp(toStartOfDay(max(received_at))) AS received_day, min(log_offset) AS first_offset \
             FROM {}.events WHERE log_partition = {{partition:Int32}} AND log_offset > {{beyond:Int64}} \
               AND log_offset <= {{through:Int64}}{of_these} \
             GROUP BY project_id, kind, id, hour ORDER BY first_offset LIMIT {{limit:UInt64}}",
            self.database()
        );
        self.read_with(&sql, |query| {
            let query = projects.bind(query).param("partition", partition).param("beyond", beyond);
            query.param("through", through).param("limit", limit as u64)
        })
        .await
    }

    /// `derived_through`: every stored event of a project that was received before its instant is reflected in the
    /// derivations. It is the store's present when nothing waits.
    ///
    /// Says nothing of what is acknowledged and not stored yet: that is `complete_through`'s matter.
    ///
    /// # Errors
    /// Whatever keeps the queries from being answered.
    pub async fn derived_through(&self) -> Result<DerivedThrough, StoreError> {
        let beyond = self.beyond_progress().await?;
        let sql = format!(
            "SELECT toUnixTimestamp64Nano(if(count() = 0, now64(9), least(now64(9), min(received_at)))) \
             FROM {}.events WHERE {}",
            self.database(),
            beyond.others
        );
        let others = self.read_one(&sql, self.read_timeout).await?;
        let Some(behind) = beyond.behind() else {
            return Ok(DerivedThrough { others, behind: HashMap::new() });
        };
        let sql = format!(
            "SELECT toString(project_id), toUnixTimestamp64Nano(min(received_at)) FROM {}.events WHERE {behind} \
             GROUP BY project_id",
            self.database()
        );
        let behind: Vec<(String, i64)> = self.read_with(&sql, |query| beyond.bind(query)).await?;
        Ok(DerivedThrough { others, behind: behind.into_iter().collect() })
    }

    /// The stored events that are not known to be derived.
    pub(super) async fn beyond_progress(&self) -> Result<Beyond, StoreError> {
        Ok(Beyond::new(&self.progress().await?))
    }

    /// The filter that finds all facts of groups of one kind.
    ///
    /// # Errors
    /// Whatever keeps their hours from being read.
    pub async fn group_filter(
        &self,
        kind: GroupKind,
        keys: Vec<GroupKey>,
    ) -> Result<GroupFilter, StoreError> {
        let hours = match kind {
            GroupKind::Session | GroupKind::Trace => self.group_hours(&keys).await?.into_iter().collect(),
            GroupKind::Loose => {
                let mut hours: Vec<i32> = keys
                    .iter()
                    .filter_map(|key| key.id.parse::<i64>().ok())
                    .map(|start| super::hour_of(start.saturating_mul(1_000_000_000)))
                    .collect();
                hours.sort_unstable();
                hours.dedup();
                hours
            }
        };
        Ok(GroupFilter { kind, keys, hours, adopted: Vec::new(), since: Vec::new() })
    }
}
