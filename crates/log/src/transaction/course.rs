//! What is known of the units at hand when a transaction fails, and what may be done next: pure.

/// What is to be done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Start a client, which ends what an earlier one of the id has open.
    Start,
    /// Look up in the committed offsets which units are settled.
    LookUp,
    /// Write the units and commit.
    Transact,
}

/// What a failure leaves of the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nothing is open, the next transaction may begin.
    Usable,
    /// What it has open is known to the cluster alone: the next client's start ends it.
    Unknown,
    /// Beyond use; perhaps by another process of the same id.
    Fenced,
}

/// How far the units at hand have come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Course {
    started: bool,
    in_doubt: bool,
}

impl Course {
    /// In doubt, nothing is written before the doubt is settled, and nothing is looked up before a client has started:
    /// until then the transaction in doubt is open, and so is its outcome.
    pub(super) const fn next(&self) -> Step {
        match (self.started, self.in_doubt) {
            (false, _) => Step::Start,
            (true, true) => Step::LookUp,
            (true, false) => Step::Transact,
        }
    }

    /// A client has started.
    pub(super) const fn started(&mut self) {
        self.started = true;
    }

    /// It is known which units are settled.
    pub(super) const fn looked_up(&mut self) {
        self.in_doubt = false;
    }

    /// Something failed. `in_doubt` tells that the commit had been asked for.
    pub(super) const fn failed(&mut self, client: State, in_doubt: bool) {
        self.started = self.started && matches!(client, State::Usable);
        self.in_doubt = self.in_doubt || in_doubt;
    }
}

#[cfg(test)]
mod tests;
