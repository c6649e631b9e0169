//! `fleetlog formats`: which formats are understood, how a record of each is recognised, and since which version.

use clap::Args;
use fleetlog_formats::catalogue::{CATALOGUE, Format};

use crate::output::say;

/// Lists the formats that are understood, in the order in which they are looked for.
///
/// Anything else is kept whole as `raw.unknown`. A name may be given as the format of `POST /v1/raw/{format}` and of
/// `fleetlog send`.
#[derive(Debug, Args)]
pub(crate) struct Formats {
    /// Print a JSON array instead of a table
    #[arg(long)]
    json: bool,
}

impl Formats {
    pub(crate) fn run(self) -> anyhow::Result<()> {
        if self.json {
            say(&serde_json::to_string_pretty(&CATALOGUE.iter().map(as_json).collect::<Vec<_>>())?);
        } else {
            table(CATALOGUE).iter().for_each(|line| say(line));
        }
        Ok(())
    }
}

fn as_json(format: &Format) -> serde_json::Value {
    serde_json::json!({
        "name": format.name,
        "title": format.title,
        "channel": format.channel.as_str(),
        "recognised_by": format.recognised_by,
        "made_from": format.made_from,
    })
}

/// The catalogue in columns, and under each format how it is recognised.
fn table(formats: &[Format]) -> Vec<String> {
    let width = |column: fn(&Format) -> usize, title: &str| {
        formats.iter().map(column).chain([title.len()]).max().unwrap_or_default()
    };
    let name = width(|format| format.name.len(), "FORMAT");
    let channel = width(|format| format.channel.as_str().len(), "CHANNEL");
    let mut lines = vec![format!("{:name$}  {:channel$}  WHAT IT IS", "FORMAT", "CHANNEL")];
    for format in formats {
        lines.push(format!("{:name$}  {:channel$}  {}", format.name, format.channel.as_str(), format.title));
        lines.push(format!("{:name$}  {:channel$}  by {}", "", "", format.recognised_by));
        if !format.made_from.is_empty() {
            lines.push(format!("{:name$}  {:channel$}  since {}", "", "", format.made_from));
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_listed_with_its_marks() {
        let lines = table(CATALOGUE);
        for format in CATALOGUE {
            assert!(lines.iter().any(|line| line.starts_with(format.name) && line.ends_with(format.title)));
            assert!(lines.iter().any(|line| line.ends_with(format.recognised_by)));
            assert_eq!(as_json(format)["channel"], format.channel.as_str());
        }
    }
}
