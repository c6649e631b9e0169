//! `fleetlog projects`: projects and their settings, in the control topic that the services follow live.

use anyhow::bail;
use clap::{Args, Subcommand, ValueEnum};
use fleetlog_runtime::Clock;
use fleetlog_schemas::control::Project;

use crate::ConfigArgs;
use crate::keys::{ensure_project, open};
use crate::limits::{self, LimitArgs};
use crate::output::{ListArgs, note, say};

/// Lists projects and changes their settings.
#[derive(Debug, Args)]
pub(crate) struct Projects {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List the projects and their settings
    List(ListArgs),
    /// Change a project's settings, and create it if there is none of that name
    Set(Set),
}

#[derive(Debug, Args)]
struct Set {
    /// Project
    project: String,
    /// Whether secrets in the project's events are replaced before anything is stored; takes effect within moments
    #[arg(long)]
    redaction: Option<Switch>,
    #[command(flatten)]
    limits: LimitArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Switch {
    On,
    Off,
}

impl Projects {
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let writer = open(&self.config.load()?).await?;
        match self.action {
            Action::List(list) => {
                let projects = writer.projects().await?;
                projects.iter().for_each(|project| say(&line(project, list.json)));
                if projects.is_empty() {
                    note("no projects");
                }
            }
            Action::Set(set) => {
                if set.redaction.is_none() && set.limits.is_empty() {
                    bail!("no setting is named; `fleetlog projects set --help` lists them");
                }
                ensure_project(&writer, &set.project, &Clock::system()).await?;
                let known = writer.projects().await?;
                for project in known.into_iter().filter(|project| project.project_id == set.project) {
                    let redaction =
                        set.redaction.map_or(project.redaction, |redaction| redaction == Switch::On);
                    let changed = Project { redaction, limits: set.limits.apply(project.limits), ..project };
                    writer.put_project(&changed).await?;
                    note(&line(&changed, false));
                }
            }
        }
        Ok(())
    }
}

fn line(project: &Project, json: bool) -> String {
    let Project { project_id, name, created_at_ms, redaction, limits } = project;
    if json {
        return serde_json::json!({
            "project_id": project_id, "name": name, "created_at_ms": created_at_ms, "redaction": redaction,
            "limits": limits,
        })
        .to_string();
    }
    let redaction = if *redaction { "on" } else { "off" };
    format!("{project_id:<24} redaction {redaction:<3} {}", limits::said(*limits))
}

#[cfg(test)]
mod tests {
    use fleetlog_schemas::control::SendLimits;

    use super::*;

    #[test]
    fn a_project_is_said_with_its_settings() {
        let project = Project {
            project_id: "acme".into(),
            name: "acme".into(),
            created_at_ms: 1,
            redaction: false,
            limits: SendLimits { records_per_day: Some(7), ..SendLimits::default() },
        };
        assert_eq!(line(&project, false), format!("{:<24} redaction off 7 records/day", "acme"));
        let json: serde_json::Value = serde_json::from_str(&line(&project, true)).unwrap();
        assert_eq!((&json["project_id"], &json["redaction"]), (&"acme".into(), &false.into()));
        assert_eq!(json["limits"]["records_per_day"], 7);
    }
}
