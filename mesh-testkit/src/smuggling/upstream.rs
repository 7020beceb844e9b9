//! The app behind the proxy: reads raw bytes, strictly, and answers each request with `200 OK`.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::strict::{self, Request};

/// A listening upstream; its threads end with the process.
#[derive(Debug)]
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

/// What arrived so far.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    /// Complete requests.
    pub requests: Vec<Request>,
    /// What was not strict, with the bytes of its connection.
    pub violations: Vec<String>,
}

impl Upstream {
    /// Listens on `address`.
    ///
    /// # Errors
    ///
    /// The address cannot be bound.
    pub fn listen(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        let address = listener.local_addr()?;
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = Arc::clone(&seen);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let seen = Arc::clone(&shared);
                thread::spawn(move || serve(socket, &seen));
            }
        });
        Ok(Self { address, seen })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A copy of what arrived so far.
    pub fn seen(&self) -> Seen {
        lock(&self.seen).clone()
    }
}

fn serve(mut socket: TcpStream, seen: &Mutex<Seen>) {
    let (mut bytes, mut block) = (Vec::new(), [0; 4096]);
    loop {
        match strict::request(&bytes) {
            Ok(Some((request, used))) => {
                bytes.drain(..used);
                lock(seen).requests.push(request);
                if socket
                    .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                    .is_err()
                {
                    return;
                }
                continue;
            }
            Ok(None) => {}
            Err(why) => {
                let violation = format!("{why}; bytes {:?}", String::from_utf8_lossy(&bytes));
                lock(seen).violations.push(violation);
                return;
            }
        }
        match socket.read(&mut block) {
            Ok(0) | Err(_) => return,
            Ok(n) => bytes.extend_from_slice(&block[..n]),
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
