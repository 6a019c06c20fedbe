//! Free ports that stay reserved: two servers that start at once never get the same one, and a
//! server that is down keeps its own.
//!
//! They are below the range of outgoing connections: otherwise the system could give a client of
//! one test the port of a server that another test has stopped and is about to start again.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use anyhow::{Result, bail};

const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A free port of 127.0.0.1 that nobody else who reserves ports in this data folder gets while this
/// value exists.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Reserves the preferred port if it is free, otherwise any free one.
    ///
    /// # Errors
    /// If no port is free, or the data folder cannot be written.
    pub fn reserve(preferred: Option<u16>) -> Result<Self> {
        let folder = crate::folders::data()?.join("ports");
        crate::folders::create_ours(&folder)?;
        let any = std::iter::repeat_with(|| fastrand::u16(RANGE)).take(500);
        for number in preferred.into_iter().chain(any) {
            if let Some(port) = Self::try_reserve(&folder, number)? {
                return Ok(port);
            }
        }
        bail!("no free port between {} and {}: stop some servers", RANGE.start, RANGE.end)
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    fn try_reserve(folder: &Path, number: u16) -> Result<Option<Self>> {
        let lock = File::create(folder.join(number.to_string()))?;
        let is_free =
            lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok();
        Ok(is_free.then_some(Self { number, _lock: lock }))
    }
}

/// Whether a server accepts connections on a port.
pub(crate) async fn accepts(port: u16) -> bool {
    tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_given_to_nobody_else_until_it_is_released() {
        let port = Port::reserve(None).unwrap();
        let other = Port::reserve(Some(port.number)).unwrap();
        assert_ne!(port.number, other.number);
        let number = port.number;
        drop(port);
        assert_eq!(Port::reserve(Some(number)).unwrap().number, number);
    }
}
