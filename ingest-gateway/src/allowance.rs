//! What a sender may send: rates and daily quotas, of its key and of its project.
//!
//! Both are judged twice: before the body is read, since who has nothing left need not send it, and again when it is
//! known what the body holds, which is then charged. Rates hold at each gateway for itself. A quota is shared by all
//! gateways through the usage topic and survives their restarts; it may be exceeded by what they accept within
//! `gateway.quota_publish_ms`, and by the one request that reaches it.

mod bucket;
mod quota;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fleetlog_log::Principal;
use fleetlog_schemas::control::SendLimits;
use fleetlog_schemas::usage::{Subject, UsageCount};

use crate::error::{LimitKind, Refusal, Whose};
use bucket::Bucket;
use quota::{Used, day_of};

/// The time, by both clocks: rates must not stop when the wall clock is set back, and a day is the wall clock's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// Nanoseconds since any fixed moment.
    pub(crate) steady_ns: i64,
    /// Nanoseconds since the epoch.
    pub(crate) wall_ns: i64,
}

/// What holds where a key or a project sets nothing of its own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Defaults {
    pub(crate) key: SendLimits,
    pub(crate) project: SendLimits,
    /// How long an unused rate is saved up, nanoseconds.
    pub(crate) burst_ns: i64,
}

/// Everyone's allowances. Memory: one entry for each key and project that has a limit and has sent.
#[derive(Debug)]
pub(crate) struct Allowances {
    /// Name of this gateway since its start.
    instance: Arc<str>,
    defaults: Defaults,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The latest day that was seen.
    day: i64,
    accounts: HashMap<(Whose, Arc<str>), Account>,
}

#[derive(Clone, Debug, Default)]
struct Account {
    records: Bucket,
    bytes: Bucket,
    used: Used,
}

/// One sender's allowance.
#[derive(Debug)]
pub(crate) struct Allowance<'a> {
    all: &'a Allowances,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    whose: Whose,
    id: Arc<str>,
    limits: SendLimits,
}

impl Allowances {
    pub(crate) fn new(instance: impl Into<Arc<str>>, defaults: Defaults) -> Self {
        Self { instance: instance.into(), defaults, state: Mutex::default() }
    }

    /// The allowance of a sender, from what its key and its project set.
    pub(crate) fn of(
        &self,
        principal: &Principal,
        (key, project): (SendLimits, SendLimits),
    ) -> Allowance<'_> {
        let part = |whose, id: &Arc<str>, limits: SendLimits| {
            let SendLimits { records_per_second, bytes_per_second, records_per_day } = limits;
            let some = [records_per_second, bytes_per_second, records_per_day]
                .iter()
                .any(|limit| is_set(*limit).is_some());
            some.then(|| Part { whose, id: Arc::clone(id), limits })
        };
        let parts = [
            part(Whose::Key, &principal.key_id, key.or(self.defaults.key)),
            part(Whose::Project, &principal.project_id, project.or(self.defaults.project)),
        ];
        // Without limits, which is the rule, this allocates nothing.
        Allowance { all: self, parts: parts.into_iter().flatten().collect() }
    }

    /// Hears what another gateway, or this one in an earlier life, has accepted.
    pub(crate) fn hear(&self, count: UsageCount) {
        if *count.instance == *self.instance {
            return;
        }
        let (whose, id) = match count.subject {
            Subject::Key(id) => (Whose::Key, id),
            Subject::Project(id) => (Whose::Project, id),
        };
        let mut state = self.state();
        if count.day < state.day {
            return;
        }
        let account = state.accounts.entry((whose, id.into())).or_default();
        account.used.hear(&count.instance.into(), count.day, count.records);
    }

    /// The counts that the other gateways do not know yet.
    pub(crate) fn unsaid(&self, now: Now) -> Vec<UsageCount> {
        let (day, _) = day_of(now.wall_ns);
        let mut state = self.state();
        state.turn_to(day, now.steady_ns);
        let count = |((whose, id), account): (&(Whose, Arc<str>), &Account)| {
            let records = account.used.unsaid(day)?;
            let subject = match whose {
                Whose::Key => Subject::Key(id.as_ref().to_owned()),
                Whose::Project => Subject::Project(id.as_ref().to_owned()),
            };
            Some(UsageCount { instance: self.instance.as_ref().to_owned(), day, subject, records })
        };
        state.accounts.iter().filter_map(count).collect()
    }

    /// Remembers that the others can know this count.
    pub(crate) fn said(&self, count: UsageCount) {
        let key: (Whose, Arc<str>) = match count.subject {
            Subject::Key(id) => (Whose::Key, id.into()),
            Subject::Project(id) => (Whose::Project, id.into()),
        };
        if let Some(account) = self.state().accounts.get_mut(&key) {
            account.used.told(count.day, count.records);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets what an earlier day left.
    fn turn_to(&mut self, day: i64, steady_ns: i64) {
        if day > self.day {
            self.day = day;
            self.accounts.retain(|_, account| {
                let is_used = account.used.forget_before(day);
                is_used || !account.records.is_full(steady_ns) || !account.bytes.is_full(steady_ns)
            });
        }
    }
}

/// 0 is no limit.
fn is_set(limit: Option<u64>) -> Option<u64> {
    limit.filter(|limit| *limit > 0)
}

fn wait(nanos: i64) -> Duration {
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

impl Allowance<'_> {
    /// Whether the sender has anything left.
    ///
    /// # Errors
    /// [`Refusal::RateLimited`] or [`Refusal::QuotaExceeded`].
    pub(crate) fn judge(&self, now: Now) -> Result<(), Refusal> {
        if self.parts.is_empty() {
            return Ok(());
        }
        self.judge_in(&self.all.state(), now)
    }

    fn judge_in(&self, state: &State, now: Now) -> Result<(), Refusal> {
        let (day, left_ns) = day_of(now.wall_ns);
        let burst_ns = self.all.defaults.burst_ns;
        for Part { whose, id, limits } in &self.parts {
            let Some(account) = state.accounts.get(&(*whose, Arc::clone(id))) else { continue };
            let rates = [
                (LimitKind::RecordsPerSecond, account.records, limits.records_per_second),
                (LimitKind::BytesPerSecond, account.bytes, limits.bytes_per_second),
            ];
            for (kind, bucket, limit) in rates {
                let Some(limit) = is_set(limit) else { continue };
                if let Err(nanos) = bucket.judge(burst_ns, now.steady_ns) {
                    return Err(Refusal::RateLimited { whose: *whose, kind, limit, wait: wait(nanos) });
                }
            }
            if let Some(limit) = is_set(limits.records_per_day).filter(|limit| account.used.on(day) >= *limit)
            {
                return Err(Refusal::QuotaExceeded { whose: *whose, limit, wait: wait(left_ns) });
            }
        }
        Ok(())
    }

    /// Charges a request that is about to be published. It is judged again: others may have been charged meanwhile.
    ///
    /// # Errors
    /// As [`Self::judge`]; nothing is charged then.
    pub(crate) fn charge(&self, records: u64, bytes: u64, now: Now) -> Result<(), Refusal> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let (day, _) = day_of(now.wall_ns);
        let mut state = self.all.state();
        state.turn_to(day, now.steady_ns);
        self.judge_in(&state, now)?;
        for Part { whose, id, limits } in &self.parts {
            let account = state.accounts.entry((*whose, Arc::clone(id))).or_default();
            if let Some(rate) = is_set(limits.records_per_second) {
                account.records.charge(records, rate, now.steady_ns);
            }
            if let Some(rate) = is_set(limits.bytes_per_second) {
                account.bytes.charge(bytes, rate, now.steady_ns);
            }
            if is_set(limits.records_per_day).is_some() {
                account.used.charge(records, day);
            }
        }
        Ok(())
    }

    /// Gives the quota back what was charged and then not published. The rate keeps it: the work was done.
    pub(crate) fn refund(&self, records: u64, now: Now) {
        let (day, _) = day_of(now.wall_ns);
        for Part { whose, id, limits } in &self.parts {
            if is_set(limits.records_per_day).is_some()
                && let Some(account) = self.all.state().accounts.get_mut(&(*whose, Arc::clone(id)))
            {
                account.used.refund(records, day);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::quota::DAY_NS;
    use super::*;
    use fleetlog_runtime::Classified;
    use fleetlog_schemas::control::Role;

    const SECOND: i64 = 1_000_000_000;

    fn principal(key: &str) -> Principal {
        Principal { key_id: key.into(), project_id: "p".into(), role: Role::Ingest }
    }

    fn at(seconds: i64) -> Now {
        Now { steady_ns: seconds * SECOND, wall_ns: DAY_NS + seconds * SECOND }
    }

    fn allowances(defaults: Defaults) -> Allowances {
        Allowances::new("here", Defaults { burst_ns: SECOND, ..defaults })
    }

    fn none() -> (SendLimits, SendLimits) {
        (SendLimits::default(), SendLimits::default())
    }

    fn day(records: u64) -> SendLimits {
        SendLimits { records_per_day: Some(records), ..SendLimits::default() }
    }

    fn code(result: Result<(), Refusal>) -> &'static str {
        result.map_or_else(|refusal| refusal.code(), |()| "ok")
    }

    #[test]
    fn without_limits_nothing_is_kept() {
        let all = allowances(Defaults::default());
        let sender = all.of(&principal("k"), none());
        assert_eq!(code(sender.charge(1_000_000, 1, at(0))), "ok");
        assert!(all.state().accounts.is_empty() && all.unsaid(at(0)).is_empty());
    }

    #[test]
    fn a_projects_limit_holds_for_all_its_keys_together_and_a_keys_only_for_itself() {
        let rate = |records| SendLimits { records_per_second: Some(records), ..SendLimits::default() };
        let all = allowances(Defaults { key: rate(10), project: rate(15), ..Defaults::default() });
        let [a, b] = ["a", "b"].map(|key| all.of(&principal(key), none()));
        assert_eq!(code(a.charge(10, 0, at(0))), "ok");
        assert!(matches!(a.judge(at(0)), Err(Refusal::RateLimited { whose: Whose::Key, limit: 10, .. })));
        assert_eq!(code(b.charge(6, 0, at(0))), "ok");
        assert!(matches!(b.judge(at(0)), Err(Refusal::RateLimited { whose: Whose::Project, limit: 15, .. })));
        assert_eq!([a, b].map(|sender| code(sender.judge(at(1)))), ["ok", "ok"]);
    }

    #[test]
    fn bytes_are_a_rate_of_their_own() {
        let all = allowances(Defaults::default());
        let limits = SendLimits { bytes_per_second: Some(100), ..SendLimits::default() };
        let sender = all.of(&principal("k"), (limits, SendLimits::default()));
        assert_eq!(code(sender.charge(1, 1_000, at(0))), "ok");
        let refusal = sender.charge(1, 1, at(0)).unwrap_err();
        assert!(
            matches!(&refusal, Refusal::RateLimited { kind: LimitKind::BytesPerSecond, .. }),
            "{refusal}"
        );
        assert_eq!(code(sender.judge(at(10))), "ok");
    }

    #[test]
    fn a_quota_is_told_heard_refunded_and_new_each_day() {
        let all = allowances(Defaults::default());
        let sender = all.of(&principal("k"), (day(10), SendLimits::default()));
        assert_eq!(code(sender.charge(6, 0, at(0))), "ok");
        let unsaid = all.unsaid(at(0));
        assert_eq!(unsaid.iter().map(|count| (count.records, count.day)).collect::<Vec<_>>(), [(6, 1)]);
        all.hear(unsaid[0].clone());
        assert_eq!(code(sender.judge(at(0))), "ok", "its own count is not counted twice");
        unsaid.into_iter().for_each(|count| all.said(count));
        assert!(all.unsaid(at(0)).is_empty());

        let elsewhere = |records| UsageCount {
            instance: "there".into(),
            day: 1,
            subject: Subject::Key("k".into()),
            records,
        };
        all.hear(elsewhere(3));
        assert_eq!(
            code(sender.charge(2, 0, at(1))),
            "ok",
            "the request that reaches the quota is taken whole"
        );
        let Err(Refusal::QuotaExceeded { limit: 10, wait, .. }) = sender.judge(at(86_000)) else {
            panic!("refused")
        };
        assert_eq!(wait, Duration::from_secs(400));
        sender.refund(2, at(1));
        assert_eq!(code(sender.judge(at(1))), "ok");
        all.hear(elsewhere(4));
        assert_eq!(code(sender.judge(at(1))), "quota_exceeded");
        assert_eq!(code(sender.judge(at(86_400))), "ok");
        assert_eq!(code(sender.charge(1, 0, at(86_400))), "ok");
        assert_eq!(all.unsaid(at(86_400)).len(), 1);
        all.hear(elsewhere(100));
        assert_eq!(code(sender.judge(at(86_400))), "ok", "yesterday's count is of no use");
    }
}
