//! Creates and revokes keys, by writing to the control topic.

use fleetlog_runtime::Secret;
use fleetlog_schemas::control::{ApiKey, ControlRecord, PresentedKey, Project, Role, SendLimits};
use fleetlog_schemas::topic;
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

use super::read_all;
use crate::{KafkaConfig, LogError, Outgoing, Producer, Target};

/// Kafka's default limit for a message, which the control topic keeps.
const MESSAGE_MAX_BYTES: usize = 1_000_000;
/// Enough for ids to be unique; they are public.
const KEY_ID_BYTES: usize = 8;
/// 256 bits: a plain SHA-256 of so much randomness cannot be searched.
const SECRET_BYTES: usize = 32;

/// Writes the control topic, for `fleetlog keys`.
#[derive(Debug)]
pub struct ControlWriter {
    config: KafkaConfig,
    producer: Producer,
}

/// A key just created; the only moment at which its text exists.
#[derive(Clone, Debug)]
pub struct NewKey {
    /// What its holder presents, to be shown once.
    pub text: Secret,
    /// What is stored of it.
    pub key: ApiKey,
}

impl ControlWriter {
    /// A writer; the control topic must exist.
    ///
    /// # Errors
    /// [`LogError::Config`] when librdkafka refuses the configuration.
    pub fn new(config: &KafkaConfig) -> Result<Self, LogError> {
        Ok(Self { config: config.clone(), producer: Producer::new(config, MESSAGE_MAX_BYTES)? })
    }

    /// Creates a key with a random secret, of which only the hash is stored.
    ///
    /// # Errors
    /// What Kafka said; the key is then not valid.
    pub async fn create_key(
        &self,
        project_id: &str,
        role: Role,
        label: &str,
        now_ms: i64,
    ) -> Result<NewKey, LogError> {
        let (key_id, secret) = (random_hex::<KEY_ID_BYTES>()?, random_hex::<SECRET_BYTES>()?);
        let key = ApiKey {
            key_id,
            project_id: project_id.to_owned(),
            secret_sha256: hex::encode(Sha256::digest(secret.as_bytes())),
            role,
            label: label.to_owned(),
            created_at_ms: now_ms,
            revoked_at_ms: None,
            limits: SendLimits::default(),
        };
        self.put(&ControlRecord::Key(key.clone())).await?;
        Ok(NewKey { text: Secret::new(PresentedKey::format(&key.key_id, &secret)), key })
    }

    /// Revokes a key; `None` when there is none of that id. A key revoked before keeps its first date.
    ///
    /// # Errors
    /// What Kafka said; the key is then still valid.
    pub async fn revoke_key(&self, key_id: &str, now_ms: i64) -> Result<Option<ApiKey>, LogError> {
        let Some(mut key) = read_all(&self.config).await?.key(key_id).cloned() else { return Ok(None) };
        if key.revoked_at_ms.is_none() {
            key.revoked_at_ms = Some(now_ms);
            self.put(&ControlRecord::Key(key.clone())).await?;
        }
        Ok(Some(key))
    }

    /// Changes what may be sent with a key; `None` when there is none of that id.
    ///
    /// # Errors
    /// What Kafka said; the old limits then still hold.
    pub async fn limit_key(
        &self,
        key_id: &str,
        change: impl FnOnce(SendLimits) -> SendLimits,
    ) -> Result<Option<ApiKey>, LogError> {
        let Some(mut key) = read_all(&self.config).await?.key(key_id).cloned() else { return Ok(None) };
        key.limits = change(key.limits);
        self.put(&ControlRecord::Key(key.clone())).await?;
        Ok(Some(key))
    }

    /// Writes a project and its settings.
    ///
    /// # Errors
    /// What Kafka said.
    pub async fn put_project(&self, project: &Project) -> Result<(), LogError> {
        self.put(&ControlRecord::Project(project.clone())).await
    }

    /// All keys, revoked ones included, by project and creation.
    ///
    /// # Errors
    /// What Kafka said.
    pub async fn keys(&self) -> Result<Vec<ApiKey>, LogError> {
        Ok(read_all(&self.config).await?.keys())
    }

    /// All projects, by id.
    ///
    /// # Errors
    /// What Kafka said.
    pub async fn projects(&self) -> Result<Vec<Project>, LogError> {
        Ok(read_all(&self.config).await?.projects())
    }

    async fn put(&self, record: &ControlRecord) -> Result<(), LogError> {
        let payload = serde_json::to_vec(record).map_err(|e| LogError::Control(e.to_string()))?;
        let delivery = self.producer.enqueue(Outgoing {
            topic: topic::CONTROL,
            target: Target::Partition(0),
            key: Some(record.topic_key().as_bytes()),
            payload: Some(&payload),
        })?;
        delivery.await.map(|_| ())
    }
}

fn random_hex<const N: usize>() -> Result<String, LogError> {
    let mut bytes = [0; N];
    OsRng
        .try_fill_bytes(&mut bytes)
        .map_err(|e| LogError::Control(format!("no randomness from the operating system: {e}")))?;
    Ok(hex::encode(bytes))
}
