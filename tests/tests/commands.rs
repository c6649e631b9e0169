//! What the commands say when all is well, and when it is not.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Output;

use anyhow::{Result, ensure};
use fleetlog_tests::run;

const SERVICES: [&str; 4] =
    ["fleetlog-ingest-gateway", "fleetlog-processor", "fleetlog-aggregator", "fleetlog-query-api"];

/// The exit code for a configuration that cannot work.
const BAD_CONFIG: i32 = 64;

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn help(program: &str, path: &[String]) -> Result<String> {
    let output = run(program, |command| {
        command.args(path).arg("--help");
    })?;
    ensure!(output.status.success(), "{program} {path:?} --help: {}", text(&output));
    Ok(String::from_utf8(output.stdout)?)
}

/// The names under "Commands:" of a help text.
fn subcommands(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let names =
        lines.take_while(|line| !line.trim().is_empty()).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[test]
fn every_command_explains_itself() -> Result<()> {
    let mut waiting = vec![Vec::new()];
    let mut seen = Vec::new();
    while let Some(path) = waiting.pop() {
        let help = help("fleetlog", &path)?;
        ensure!(help.contains("Usage: fleetlog"), "{path:?}: {help}");
        waiting.extend(subcommands(&help).into_iter().map(|name| [path.clone(), vec![name]].concat()));
        seen.push(path.join(" "));
    }
    let commands = [
        "up",
        "send",
        "keys create",
        "keys list",
        "keys limit",
        "keys revoke",
        "projects list",
        "projects set",
        "spools list",
        "spools forget",
        "migrate",
        "replay dead",
        "replay raw",
        "rederive",
        "reprice",
        "formats",
        "check-config",
    ];
    for command in commands {
        ensure!(seen.iter().any(|seen| seen == command), "no `fleetlog {command}` among {seen:?}");
    }
    for service in SERVICES {
        ensure!(help(service, &[])?.contains("--config"), "{service}");
    }
    Ok(())
}

#[test]
fn a_bad_configuration_ends_with_64_and_names_the_key_before_anything_is_started() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data");
    let sections = [
        ("fleetlog-ingest-gateway", "gateway"),
        ("fleetlog-processor", "processor"),
        ("fleetlog-aggregator", "aggregator"),
        ("fleetlog-query-api", "query"),
    ];
    for (service, section) in sections {
        let file = folder.path().join(format!("{section}.toml"));
        std::fs::write(&file, format!("[{section}]\nno_such_key = 1\n"))?;
        let tries: [(&str, &[&str]); 4] = [
            (service, &[]),
            (service, &["--check-config"]),
            ("fleetlog", &["check-config"]),
            ("fleetlog", &["up"]),
        ];
        for (program, arguments) in tries {
            let output = run(program, |command| {
                command.args(arguments).arg("--config").arg(&file).current_dir(folder.path());
            })?;
            let said = text(&output);
            let code = output.status.code();
            ensure!(code == Some(BAD_CONFIG), "{program} {arguments:?}: {}\n{said}", output.status);
            ensure!(said.contains("no_such_key"), "{program} {arguments:?}: {said}");
        }
    }
    ensure!(!data.exists(), "`fleetlog up` began to make its data folder");
    Ok(())
}

#[test]
fn a_good_configuration_passes_and_an_unknown_section_does_not() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (good, bad) = (folder.path().join("good.toml"), folder.path().join("bad.toml"));
    std::fs::write(&good, "[kafka]\nbrokers = \"127.0.0.1:9092\"\n[gateway]\nlisten = \"127.0.0.1:4318\"\n")?;
    std::fs::write(&bad, "[gatway]\nlisten = \"127.0.0.1:4318\"\n")?;
    let programs = SERVICES.map(|service| (service, "--check-config")).into_iter();
    for (program, check) in programs.chain([("fleetlog", "check-config")]) {
        for (file, code) in [(&good, 0), (&bad, BAD_CONFIG)] {
            let output = run(program, |command| {
                command.arg(check).arg("--config").arg(file);
            })?;
            ensure!(output.status.code() == Some(code), "{program}: {}: {}", file.display(), text(&output));
            ensure!(code == 0 || text(&output).contains("gatway"), "{program}: {}", text(&output));
        }
    }
    Ok(())
}

#[test]
fn a_taken_port_is_named_with_the_flag_that_changes_it() -> Result<()> {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let port = taken.local_addr()?.port();
    let flags = ["--ingest-port", "--grpc-port", "--query-port", "--clickhouse-port", "--kafka-port"];
    for flag in flags {
        let free: [u16; 5] = fleetlog_engines::free_ports()?;
        let data = tempfile::tempdir()?;
        let output = run("fleetlog", |command| {
            command.args(["up", "--data"]).arg(data.path());
            for (other, free) in flags.into_iter().zip(free) {
                command.args([other, &(if other == flag { port } else { free }).to_string()]);
            }
        })?;
        let said = text(&output);
        ensure!(output.status.code() == Some(1), "{flag}: {}\n{said}", output.status);
        ensure!(said.contains(&format!("port {port}")) && said.contains(flag), "{flag}: {said}");
    }
    Ok(())
}
