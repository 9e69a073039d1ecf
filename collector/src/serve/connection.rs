//! One accepted connection: its bytes, who it is, the slots that it occupies, and when it is cut.

use std::{
    collections::HashMap,
    hash::Hash,
    io,
    net::IpAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use muster_proto::caller::Caller;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tonic::transport::server::Connected;

use super::peer::{Identity, Peer};
use crate::config::Limits;

/// How long a connection may be open before its first request.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// How long a connection for enrolment may be open.
const ENROLLMENT: Duration = Duration::from_secs(60);

/// What a request is told of its connection.
#[derive(Clone, Debug)]
pub struct Info {
    /// The other end.
    pub peer: Arc<Peer>,
    asked: Arc<AtomicBool>,
}

impl Info {
    /// Returns the information of a connection with `peer`.
    pub fn new(peer: Peer) -> Self {
        Self { peer: Arc::new(peer), asked: Arc::default() }
    }

    /// Notes that a request has come.
    pub fn note_request(&self) {
        self.asked.store(true, Ordering::Relaxed);
    }
}

/// An accepted connection.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    info: Info,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    deadline: Option<Pin<Box<Sleep>>>,
    _slots: Vec<Slot>,
    _ended: DropGuard,
}

impl Connection {
    /// Returns the connection with `peer`, which ends at the latest when `cut` is cancelled, and cancels it when it ends.
    pub fn new(stream: TlsStream<TcpStream>, peer: Peer, slots: Vec<Slot>, cut: CancellationToken) -> Self {
        let life = if peer.identity == Identity::Enrolling { ENROLLMENT } else { FIRST_REQUEST };
        Self {
            stream,
            info: Info::new(peer),
            cut: Box::pin(cut.clone().cancelled_owned()),
            _ended: cut.drop_guard(),
            deadline: Some(Box::pin(tokio::time::sleep(life))),
            _slots: slots,
        }
    }

    /// Fails when the connection is to be cut.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            let is_member = self.info.peer.identity != Identity::Enrolling;
            if is_member && self.info.asked.load(Ordering::Relaxed) {
                self.deadline = None;
            } else {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

impl Connected for Connection {
    type ConnectInfo = Info;

    fn connect_info(&self) -> Info {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_cut(cx)?;
        Pin::new(&mut this.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.poll_cut(cx)?;
        Pin::new(&mut this.stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_cut(cx)?;
        Pin::new(&mut this.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.poll_cut(cx)?;
        Pin::new(&mut this.stream).poll_shutdown(cx)
    }
}

/// What shares a bound.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Bound {
    /// Every connection.
    All,
    /// Those from one address.
    Address(IpAddr),
    /// Those with one identity.
    Caller(Caller),
}

/// Counts of open connections.
#[derive(Clone, Debug, Default)]
pub struct Slots(Arc<Mutex<HashMap<Bound, usize>>>);

impl Slots {
    /// Takes a slot of `bound`, or returns `None` when all are taken.
    pub fn take(&self, bound: Bound, limits: &Limits) -> Option<Slot> {
        let most = match bound {
            Bound::All => limits.connections,
            Bound::Address(_) => limits.connections_per_address,
            Bound::Caller(_) => limits.connections_per_caller,
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.get(&bound).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        counts.insert(bound.clone(), count + 1);
        Some(Slot { slots: self.clone(), bound })
    }

    /// Returns how many slots of `bound` are taken.
    pub fn count(&self, bound: &Bound) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(bound).copied().unwrap_or(0)
    }
}

/// A slot that is taken until it is dropped.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    bound: Bound,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.slots.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.bound) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.bound);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_bounded_and_free_again_when_dropped() {
        let limits = Limits { connections_per_address: 2, ..Limits::default() };
        let slots = Slots::default();
        let bound = || Bound::Address([127, 0, 0, 1].into());
        let first = slots.take(bound(), &limits).unwrap();
        let _second = slots.take(bound(), &limits).unwrap();
        assert!(slots.take(bound(), &limits).is_none());
        assert!(slots.take(Bound::Address([127, 0, 0, 2].into()), &limits).is_some());
        drop(first);
        assert_eq!(slots.count(&bound()), 1);
        assert!(slots.take(bound(), &limits).is_some());
    }
}
