//! Free and taken loopback ports.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::error::{EngineError, IoContext as _, Result};

/// Picks `N` different free loopback ports.
///
/// They are free at this moment, not reserved: whoever binds one must be ready to lose it and pick again.
///
/// # Errors
///
/// When the operating system has no free port.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    // All are held until all are known, or one would be handed out twice.
    let mut held = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .context("bind a free port on", Path::new("127.0.0.1"))?;
        *port = listener.local_addr().context("read the port of", Path::new("127.0.0.1"))?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Fails with the name of the setting to change when a loopback port is taken; 0 is always free.
///
/// # Errors
///
/// [`EngineError::PortInUse`] when another program listens there, [`EngineError::Io`] when it cannot be bound for
/// another reason (a privileged port).
pub fn ensure_free(port: u16, wanted_for: &str, setting: &str) -> Result<()> {
    match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => Err(EngineError::PortInUse {
            wanted_for: wanted_for.to_owned(),
            port,
            setting: setting.to_owned(),
        }),
        Err(error) => Err(error).context("listen on", Path::new(&format!("127.0.0.1:{port}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_can_be_bound() {
        let ports: [u16; 8] = free_ports().unwrap();
        let mut distinct = ports.to_vec();
        distinct.sort_unstable();
        distinct.dedup();
        assert_eq!(distinct.len(), 8);
        assert!(ports.iter().all(|port| *port != 0));
    }

    #[test]
    fn a_taken_port_is_reported_with_its_setting() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let message = ensure_free(port, "Kafka", "`--kafka-port`").unwrap_err().to_string();
        assert!(message.contains(&port.to_string()) && message.contains("`--kafka-port`"), "{message}");
        drop(taken);
        ensure_free(port, "Kafka", "`--kafka-port`").unwrap();
    }
}
