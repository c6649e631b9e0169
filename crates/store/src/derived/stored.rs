//! What is stored of groups, compared with what their facts say.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use clickhouse::{Row, RowOwned, RowRead};

use super::write::{USAGE_KEYS, USAGE_SUMS};
use super::{DerivedGroup, GroupHour, GroupKey, SessionTrace, listed_keys, listed_traces};
use crate::rows::{StoredContribution, StoredGroup, StoredTrace};
use crate::store::limited;
use crate::{GroupKind, Store, StoreError};

/// What of a group can differ from what its facts say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// The hours in which it has events.
    Hours,
    /// The traces that a session names.
    Traces,
    /// The group with its calls.
    Group,
    /// What it contributes to usage.
    Contributions,
    /// What it shares in traces.
    Shares,
}

impl Part {
    /// The table that holds it.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Hours => "group_hours",
            Self::Traces => "trace_sessions",
            Self::Group => "session_groups",
            Self::Contributions => "usage_contributions",
            Self::Shares => "trace_groups",
        }
    }
}

/// A part of a group that is not what its facts say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The group.
    pub key: GroupKey,
    /// The part.
    pub part: Part,
    /// What differs: columns, or what is missing or too much.
    pub fields: Vec<String>,
}

/// What a comparison came to.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// Parts that differ.
    pub differences: Vec<Difference>,
    /// Groups whose stored version has seen facts that are gone: it is all that is left of them.
    pub expired: Vec<GroupKey>,
    /// Stored versions, 0 where there is none.
    pub versions: HashMap<GroupKey, u64>,
    /// Minutes in which a group is stored to contribute and does not: they have to be emptied.
    pub stale: BTreeMap<GroupKey, BTreeSet<u32>>,
}

/// Minutes or hours of usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scale {
    /// Minutes, out of what groups contribute.
    Minute,
    /// Hours, out of minutes.
    Hour,
}

impl Scale {
    /// The table.
    pub const fn table(self) -> &'static str {
        match self {
            Self::Minute => "usage_1m_groups",
            Self::Hour => "usage_1h_groups",
        }
    }
}

/// A minute or hour of usage that is not the sum of its parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, clickhouse::Row, serde::Deserialize)]
pub struct Bucket {
    /// Project.
    pub project_id: String,
    /// Its start, seconds since the epoch.
    pub start: u32,
    /// Its stored version, 0 where there is none.
    pub version: u64,
}

impl Store {
    /// Compares recomputed groups with what is stored. Minutes before `oldest_minute` are left out: they expire.
    ///
    /// # Errors
    /// Whatever keeps the queries from being answered.
    pub async fn compare_groups(
        &self,
        groups: &[DerivedGroup],
        oldest_minute: u32,
    ) -> Result<Compared, StoreError> {
        let mut compared = Compared::default();
        if groups.is_empty() {
            return Ok(compared);
        }
        let named: Vec<(&str, &str, &str)> = groups.iter().map(|group| name(&group.key)).collect();
        self.compare_rows(groups, &named, &mut compared).await?;
        self.compare_contributions(groups, &named, oldest_minute, &mut compared).await?;
        self.compare_shares(groups, &named, &mut compared).await?;
        let expired: BTreeSet<&GroupKey> = compared.expired.iter().collect();
        compared.differences.retain(|difference| !expired.contains(&difference.key));
        Ok(compared)
    }

    async fn compare_rows(
        &self,
        groups: &[DerivedGroup],
        named: &[(&str, &str, &str)],
        compared: &mut Compared,
    ) -> Result<(), StoreError> {
        let rows = self.stored_rows(named).await?;
        let stored: HashMap<(&str, &str, &str), &StoredGroup> = rows
            .iter()
            .map(|row| ((row.project_id.as_str(), row.group_kind.as_str(), row.group_id.as_str()), row))
            .collect();
        for (group, name) in groups.iter().zip(named) {
            let row = stored.get(name);
            // An empty group need not be there, and its times say nothing. Nor do those of a loose minute: only its calls
            // are read, and only events that report one have it derived.
            let loose = group.key.kind == GroupKind::Loose;
            let empty =
                group.session.event_count == 0 || loose && group.calls.is_empty() && group.tools.is_empty();
            let mut fields = match row {
                None if empty => Vec::new(),
                None => vec!["is missing"],
                Some(row) if empty && row.is_empty() => Vec::new(),
                Some(row) => row.differing(&group.session, &group.calls, &group.tools),
            };
            if loose {
                fields.retain(|field| {
                    ["calls.", "tools.", "is missing"].iter().any(|of| field.starts_with(of))
                });
            }
            compared.versions.insert(group.key.clone(), row.map_or(0, |row| row.version));
            if !empty && row.is_some_and(|row| row.first_received_at < group.session.first_received_at) {
                compared.expired.push(group.key.clone());
            }
            push(compared, &group.key, Part::Group, fields.into_iter().map(str::to_owned).collect());
        }
        Ok(())
    }

    async fn compare_contributions(
        &self,
        groups: &[DerivedGroup],
        named: &[(&str, &str, &str)],
        oldest_minute: u32,
        compared: &mut Compared,
    ) -> Result<(), StoreError> {
        let minutes = || groups.iter().flat_map(|group| &group.contributions).map(|one| one.minute);
        // What a group contributes lies within its hours: a margin of a day finds what was left behind beside it.
        const DAY: u32 = 86_400;
        let Some(first) = minutes().min().map(|first| first.saturating_sub(DAY).max(oldest_minute)) else {
            return Ok(());
        };
        let last = minutes().max().unwrap_or(first).saturating_add(DAY);
        let keys = listed_keys(named.iter().copied());
        let sql = format!(
            "SELECT {} FROM {}.usage_contributions FINAL \
             WHERE minute >= toDateTime({{first:UInt32}}, 'UTC') AND minute <= toDateTime({{last:UInt32}}, 'UTC') \
               AND (project_id, group_kind, group_id) IN {keys}",
            StoredContribution::columns(),
            self.database()
        );
        let rows: Vec<StoredContribution> =
            self.read_raw(&sql, |query| keys.bind(query).param("first", first).param("last", last)).await?;
        let mut stored: HashMap<(&str, &str, &str), BTreeMap<u32, &StoredContribution>> = HashMap::new();
        for row in &rows {
            let name = (row.project_id.as_str(), row.group_kind.as_str(), row.group_id.as_str());
            stored.entry(name).or_default().insert(row.minute, row);
        }
        for (group, name) in groups.iter().zip(named) {
            let mut stored = stored.remove(name).unwrap_or_default();
            let mut fields = BTreeSet::new();
            for one in group.contributions.iter().filter(|one| one.minute >= oldest_minute) {
                match stored.remove(&one.minute) {
                    Some(row) => fields.extend(row.differing(&one.usage).into_iter().map(str::to_owned)),
                    None if one.usage.is_empty() => {}
                    None => {
                        fields.insert(format!("minute {} is missing", one.minute));
                    }
                }
            }
            for (minute, row) in stored {
                if !row.differing(&[]).is_empty() {
                    fields.insert(format!("minute {minute} is left over"));
                    compared.stale.entry(group.key.clone()).or_default().insert(minute);
                }
            }
            push(compared, &group.key, Part::Contributions, fields.into_iter().collect());
        }
        Ok(())
    }

    async fn compare_shares(
        &self,
        groups: &[DerivedGroup],
        named: &[(&str, &str, &str)],
        compared: &mut Compared,
    ) -> Result<(), StoreError> {
        let traces: BTreeSet<(&str, &str)> = groups
            .iter()
            .flat_map(|group| group.traces.iter().map(|trace| (&group.key, trace)))
            .map(|(key, trace)| (key.project_id.as_str(), trace.trace_id.as_str()))
            .collect();
        if traces.is_empty() {
            return Ok(());
        }
        let traces: Vec<(&str, &str)> = traces.into_iter().collect();
        let rows = self.stored_shares(&traces, named).await?;
        let stored: HashMap<((&str, &str, &str), &str), &StoredTrace> = rows
            .iter()
            .map(|row| {
                let group = (row.project_id.as_str(), row.group_kind.as_str(), row.group_id.as_str());
                ((group, row.trace.trace_id.as_str()), row)
            })
            .collect();
        for (group, name) in groups.iter().zip(named) {
            let mut fields = BTreeSet::new();
            for trace in &group.traces {
                match stored.get(&(*name, trace.trace_id.as_str())) {
                    None if trace.event_count == 0 => {}
                    Some(row) if trace.event_count == 0 && row.trace.event_count == 0 => {}
                    Some(row) => fields.extend(row.differing(trace).into_iter().map(str::to_owned)),
                    None => {
                        fields.insert(format!("trace {} is missing", trace.trace_id));
                    }
                }
            }
            push(compared, &group.key, Part::Shares, fields.into_iter().collect());
        }
        Ok(())
    }

    /// The highest versions of groups.
    pub(super) async fn stored_rows(
        &self,
        named: &[(&str, &str, &str)],
    ) -> Result<Vec<StoredGroup>, StoreError> {
        let keys = listed_keys(named.iter().copied());
        let sql = format!(
            "SELECT {} FROM {}.session_groups FINAL \
             WHERE (project_id, group_kind, group_id) IN {keys}",
            StoredGroup::columns(),
            self.database()
        );
        self.read_raw(&sql, |query| keys.bind(query)).await
    }

    /// The highest versions of what groups share in traces (project, trace).
    pub(super) async fn stored_shares(
        &self,
        traces: &[(&str, &str)],
        named: &[(&str, &str, &str)],
    ) -> Result<Vec<StoredTrace>, StoreError> {
        let (traces, keys) = (listed_traces(traces.iter().copied()), listed_keys(named.iter().copied()));
        let sql = format!(
            "SELECT {} FROM {}.trace_groups FINAL \
             WHERE (project_id, trace_id) IN {traces} \
               AND (project_id, group_kind, group_id) IN {keys}",
            StoredTrace::COLUMNS,
            self.database()
        );
        self.read_raw(&sql, |query| keys.bind(traces.bind(query))).await
    }

    /// Those of these hours of groups that are not recorded.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn unrecorded_hours(&self, hours: &[GroupHour]) -> Result<Vec<GroupHour>, StoreError> {
        let named: BTreeSet<(&str, &str, &str)> = hours.iter().map(|hour| name(&hour.key)).collect();
        let keys = listed_keys(named);
        let sql = format!(
            "SELECT DISTINCT project_id, group_kind, group_id, hour FROM {}.group_hours \
             WHERE (project_id, group_kind, group_id) IN {keys}",
            self.database()
        );
        let known: Vec<(String, String, String, i32)> = self.read_raw(&sql, |query| keys.bind(query)).await?;
        let known: BTreeSet<(&str, &str, &str, i32)> = known
            .iter()
            .map(|(project, kind, id, hour)| (project.as_str(), kind.as_str(), id.as_str(), *hour))
            .collect();
        let missing = |hour: &&GroupHour| {
            let (project, kind, id) = name(&hour.key);
            !known.contains(&(project, kind, id, hour.hour))
        };
        Ok(hours.iter().filter(missing).cloned().collect())
    }

    /// Those of these namings that are not recorded, or only with a later time.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn unrecorded_namings(
        &self,
        namings: &[SessionTrace],
    ) -> Result<Vec<SessionTrace>, StoreError> {
        let named: BTreeSet<(&str, &str)> =
            namings.iter().map(|naming| (naming.project_id.as_str(), naming.trace_id.as_str())).collect();
        let traces = listed_traces(named);
        let sql = format!(
            "SELECT project_id, trace_id, session_id, min(first_at) FROM {}.trace_sessions \
             WHERE (project_id, trace_id) IN {traces} \
             GROUP BY project_id, trace_id, session_id",
            self.database()
        );
        let known: Vec<(String, String, String, i64)> =
            self.read_raw(&sql, |query| traces.bind(query)).await?;
        let known: HashMap<(&str, &str, &str), i64> = known
            .iter()
            .map(|(project, trace, session, first)| {
                ((project.as_str(), trace.as_str(), session.as_str()), *first)
            })
            .collect();
        let missing = |naming: &&SessionTrace| {
            let name = (naming.project_id.as_str(), naming.trace_id.as_str(), naming.session_id.as_str());
            known.get(&name).is_none_or(|first| *first > naming.first_at)
        };
        Ok(namings.iter().filter(missing).cloned().collect())
    }

    /// The minutes or hours from `first` until before `end` that are not the sum of what they are made of, at most
    /// `limit`; of one project, or of all when it is empty.
    ///
    /// # Errors
    /// Whatever keeps the query from being answered.
    pub async fn differing_usage(
        &self,
        scale: Scale,
        project: &str,
        (first, end): (u32, u32),
        limit: usize,
    ) -> Result<Vec<Bucket>, StoreError> {
        const OF_PROJECT: &str = "({project:String} = '' OR project_id = {project:String})";
        let sums = match scale {
            Scale::Minute => self.usage_sums("usage_contributions", "minute", "minute", OF_PROJECT),
            Scale::Hour => self.usage_sums("usage_1m_groups", "bucket", "toStartOfHour(bucket)", OF_PROJECT),
        };
        let columns = || USAGE_KEYS.iter().chain(USAGE_SUMS);
        let each = columns().map(|column| format!("toString({column})")).collect::<Vec<_>>().join(", ");
        let stored =
            columns().map(|column| format!("usage.{column} AS {column}")).collect::<Vec<_>>().join(", ");
        let sql = format!(
            "SELECT project, toUnixTimestamp(start) AS second, max(written) AS highest FROM ( \
               SELECT toString(project_id) AS project, start, toUInt64(0) AS written, \
                 arraySort(groupArray([{each}])) AS says FROM ({sums}) WHERE calls > 0 GROUP BY project, start \
               UNION ALL \
               SELECT toString(project_id) AS project, start, max(version) AS written, \
                 arraySort(groupArray([{each}])) AS says FROM ( \
                 SELECT project_id, bucket AS start, version, {stored} FROM {db}.{table} FINAL ARRAY JOIN usage \
                 WHERE bucket >= toDateTime({{first:UInt32}}, 'UTC') AND bucket < toDateTime({{end:UInt32}}, 'UTC') AND {OF_PROJECT} \
               ) GROUP BY project, start \
             ) GROUP BY project, start HAVING count() = 1 OR uniqExact(says) > 1 \
             ORDER BY second, project LIMIT {{limit:UInt64}}",
            db = self.database(),
            table = scale.table(),
        );
        self.read_raw(&sql, |query| {
            query
                .param("project", project)
                .param("first", first)
                .param("end", end)
                .param("limit", limit as u64)
        })
        .await
    }

    /// Reads all rows of a query without names and types in front, as sightings are read.
    async fn read_raw<T>(
        &self,
        sql: &str,
        parameters: impl FnOnce(clickhouse::query::Query) -> clickhouse::query::Query,
    ) -> Result<Vec<T>, StoreError>
    where
        T: Row + RowOwned + RowRead,
    {
        let raw = Self { client: self.client.clone().with_validation(false), ..self.clone() };
        limited(self.read_timeout, parameters(raw.reading(sql)).fetch_all::<T>()).await
    }
}

pub(super) fn name(key: &GroupKey) -> (&str, &str, &str) {
    (&key.project_id, key.kind.as_str(), &key.id)
}

fn push(compared: &mut Compared, key: &GroupKey, part: Part, fields: Vec<String>) {
    if !fields.is_empty() {
        compared.differences.push(Difference { key: key.clone(), part, fields });
    }
}
