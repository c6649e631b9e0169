//! `fleetlog keys`: API keys and their projects, in the control topic that gateway and query API follow live.

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use fleetlog_log::{Admin, ControlWriter, KafkaConfig};
use fleetlog_runtime::{Clock, Secret, Settings};
use fleetlog_schemas::control::{ApiKey, PresentedKey, Project, Role, SendLimits};

use crate::ConfigArgs;
use crate::limits::{self, LimitArgs};
use crate::output::{ListArgs, note, say};

/// The project that the first start creates.
pub(crate) const FIRST_PROJECT: &str = "default";

/// Creates, lists, limits and revokes API keys.
///
/// A key belongs to one project and reads and writes that project only. Its secret is shown once and stored hashed.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a key, and its project if there is none of that name; prints the key, once
    Create(Create),
    /// List the keys, never their secrets
    List(List),
    /// Change what may be sent with a key; it takes effect within moments everywhere
    Limit(Limit),
    /// Revoke a key; it takes effect within moments everywhere
    Revoke(Revoke),
}

#[derive(Debug, Args)]
struct Create {
    /// Project that the key reads and writes
    #[arg(long)]
    project: String,
    /// What the key may do
    #[arg(long, default_value = "ingest", value_parser = role_words())]
    role: String,
    /// What the key is for, in your words
    #[arg(long, default_value = "")]
    label: String,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Debug, Args)]
struct Limit {
    /// Public id of the key (the part between the first two underscores), or the whole key
    key_id: String,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Debug, Args)]
struct List {
    /// Only keys of this project
    #[arg(long)]
    project: Option<String>,
    #[command(flatten)]
    printed: ListArgs,
}

#[derive(Debug, Args)]
struct Revoke {
    /// Public id of the key (the part between the first two underscores), or the whole key
    key_id: String,
}

fn role_words() -> Vec<&'static str> {
    Role::ALL.iter().map(|role| role.as_str()).collect()
}

impl Keys {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let clock = Clock::system();
        let writer = open(&self.config.load()?).await?;
        match self.action {
            Action::Create(create) => create.run(&writer, &clock).await,
            Action::List(list) => list.run(&writer).await,
            Action::Limit(limit) => limit.run(&writer).await,
            Action::Revoke(revoke) => revoke.run(&writer, &clock).await,
        }
    }
}

impl Create {
    async fn run(self, writer: &ControlWriter, clock: &Clock) -> anyhow::Result<()> {
        let role = Role::parse(&self.role).with_context(|| format!("unknown role {}", self.role))?;
        if ensure_project(writer, &self.project, clock).await? {
            note(&format!("created project {:?}", self.project));
        }
        let created = writer.create_key(&self.project, role, &self.label, clock.now_ms()).await?;
        if !self.limits.is_empty() {
            writer.limit_key(&created.key.key_id, |limits| self.limits.apply(limits)).await?;
        }
        note(&format!(
            "key {} for project {:?}, role {role}, {}; shown this once:",
            created.key.key_id,
            self.project,
            limits::said(self.limits.apply(created.key.limits))
        ));
        say(created.text.expose());
        Ok(())
    }
}

impl List {
    async fn run(self, writer: &ControlWriter) -> anyhow::Result<()> {
        let wanted = |key: &ApiKey| self.project.as_ref().is_none_or(|project| *project == key.project_id);
        let keys: Vec<ApiKey> = writer.keys().await?.into_iter().filter(wanted).collect();
        if !self.printed.json && !keys.is_empty() {
            say(&format!(
                "{:<18} {:<20} {:<8} {:<8} {}",
                "KEY", "PROJECT", "ROLE", "STATE", "LABEL (LIMITS)"
            ));
        }
        for key in &keys {
            let state = if key.revoked_at_ms.is_some() { "revoked" } else { "active" };
            if self.printed.json {
                say(&serde_json::json!({
                    "key_id": key.key_id, "project_id": key.project_id, "role": key.role, "state": state,
                    "label": key.label, "created_at_ms": key.created_at_ms, "revoked_at_ms": key.revoked_at_ms,
                    "limits": key.limits,
                })
                .to_string());
            } else {
                let ApiKey { key_id, project_id, role, label, limits, .. } = key;
                let limits = match limits.is_unset() {
                    true => String::new(),
                    false => format!(" ({})", limits::said(*limits)),
                };
                say(&format!(
                    "{key_id:<18} {project_id:<20} {:<8} {state:<8} {label}{limits}",
                    role.as_str()
                ));
            }
        }
        if keys.is_empty() {
            note("no keys");
        }
        Ok(())
    }
}

impl Limit {
    async fn run(self, writer: &ControlWriter) -> anyhow::Result<()> {
        let key_id = PresentedKey::parse(&self.key_id).map_or(self.key_id.as_str(), |key| key.key_id);
        if self.limits.is_empty() {
            bail!("no limit is named: --records-per-second, --bytes-per-second or --records-per-day");
        }
        match writer.limit_key(key_id, |limits| self.limits.apply(limits)).await? {
            Some(key) => {
                let said = limits::said(key.limits);
                note(&format!("key {} of project {:?}: {said}", key.key_id, key.project_id));
                Ok(())
            }
            None => bail!("there is no key {key_id:?}; `fleetlog keys list` shows all"),
        }
    }
}

impl Revoke {
    async fn run(self, writer: &ControlWriter, clock: &Clock) -> anyhow::Result<()> {
        // The whole key is welcome too, but its secret must not be said again.
        let key_id = PresentedKey::parse(&self.key_id).map_or(self.key_id.as_str(), |key| key.key_id);
        match writer.revoke_key(key_id, clock.now_ms()).await? {
            Some(key) => {
                note(&format!("revoked key {} of project {:?}", key.key_id, key.project_id));
                Ok(())
            }
            None => bail!("there is no key {key_id:?}; `fleetlog keys list` shows all"),
        }
    }
}

/// A writer of the control topic, which is created if it does not exist yet.
pub(crate) async fn open(settings: &Settings) -> anyhow::Result<ControlWriter> {
    let kafka: KafkaConfig = settings.section(KafkaConfig::SECTION)?;
    Admin::new(&kafka)?.ensure_topics().await.with_context(|| format!("Kafka at {}", kafka.brokers))?;
    Ok(ControlWriter::new(&kafka)?)
}

/// Creates the project unless it exists; says whether it did.
pub(crate) async fn ensure_project(
    writer: &ControlWriter,
    project_id: &str,
    clock: &Clock,
) -> anyhow::Result<bool> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if project_id.is_empty() || project_id.len() > 64 || !project_id.chars().all(plain) {
        bail!("project {project_id:?}: letters, digits, '-', '_' and '.' only, at most 64");
    }
    if writer.projects().await?.iter().any(|project| project.project_id == project_id) {
        return Ok(false);
    }
    let project = Project {
        project_id: project_id.to_owned(),
        name: project_id.to_owned(),
        created_at_ms: clock.now_ms(),
        redaction: true,
        limits: SendLimits::default(),
    };
    writer.put_project(&project).await?;
    Ok(true)
}

/// The key that the first start creates.
pub(crate) struct FirstKey {
    /// Its project.
    pub(crate) project_id: String,
    /// What its holder presents.
    pub(crate) text: Secret,
}

/// Creates a first project with an admin key, unless there are keys already.
pub(crate) async fn first_key(settings: &Settings, clock: &Clock) -> anyhow::Result<Option<FirstKey>> {
    let writer = open(settings).await?;
    if !writer.keys().await?.is_empty() {
        return Ok(None);
    }
    ensure_project(&writer, FIRST_PROJECT, clock).await?;
    let created = writer.create_key(FIRST_PROJECT, Role::Admin, "first key", clock.now_ms()).await?;
    Ok(Some(FirstKey { project_id: FIRST_PROJECT.to_owned(), text: created.text }))
}
