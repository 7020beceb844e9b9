//! Workers: one thread, one runtime, one stack and one pool each, over one shared snapshot and shared limits.

use std::{io, thread::JoinHandle, time::Duration};

use mesh_core::server::{ListenerHandle, Socket};
use tokio::sync::{mpsc, watch};

use crate::Failure;

/// Longest wait for a worker's tasks once its listeners are idle.
const TASK_GRACE: Duration = Duration::from_millis(100);

/// The workers.
pub(crate) struct Workers {
    orders: Vec<mpsc::UnboundedSender<Order>>,
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
    died: mpsc::UnboundedReceiver<String>,
}

/// What a worker is asked to do.
enum Order {
    /// Accept on this socket.
    Serve(Socket, ListenerHandle),
}

impl Workers {
    /// Starts `count` threads. Each makes its stack by `setup`, and what comes of it starts to accept on a socket.
    pub(crate) fn start<F>(
        count: usize,
        setup: impl Fn() -> F + Clone + Send + 'static,
    ) -> Result<Self, Failure>
    where
        F: Fn(Socket, ListenerHandle) + 'static,
    {
        let (stop, stopping) = watch::channel(false);
        let (death, died) = mpsc::unbounded_channel();
        let mut this = Self {
            orders: Vec::new(),
            threads: Vec::new(),
            stop,
            died,
        };
        for index in 0..count {
            let (sender, receiver) = mpsc::unbounded_channel();
            let name = format!("worker-{index}");
            let notice = Notice {
                name: name.clone(),
                death: death.clone(),
                stopping: stopping.clone(),
            };
            let (setup, stopping) = (setup.clone(), stopping.clone());
            let thread = std::thread::Builder::new()
                .name(name)
                .spawn(move || {
                    let _notice = notice;
                    work(setup(), receiver, stopping);
                })
                .map_err(|source| Failure::Io {
                    what: "a worker cannot be started",
                    source,
                })?;
            this.orders.push(sender);
            this.threads.push(thread);
        }
        Ok(this)
    }

    /// Serves a socket on all workers: the first gets this one, the others sockets of their own.
    pub(crate) fn serve(&self, socket: Socket, handle: &ListenerHandle) -> io::Result<()> {
        let further = (1..self.orders.len())
            .map(|_| socket.another())
            .collect::<io::Result<Vec<_>>>()?;
        for (worker, socket) in self
            .orders
            .iter()
            .zip(std::iter::once(socket).chain(further))
        {
            // A worker that ended is told of by its notice.
            let _ = worker.send(Order::Serve(socket, handle.clone()));
        }
        Ok(())
    }

    /// The name of a worker that ended unasked; waits for one.
    pub(crate) async fn died(&mut self) -> String {
        match self.died.recv().await {
            Some(name) => name,
            None => std::future::pending().await,
        }
    }

    /// Ends the threads. Connections should be gone by then.
    pub(crate) async fn finish(self) {
        self.stop.send_replace(true);
        drop(self.orders);
        let joined = tokio::task::spawn_blocking(move || {
            self.threads
                .into_iter()
                .for_each(|thread| drop(thread.join()))
        });
        let _ = joined.await;
    }
}

/// Tells of the end of a thread, also by panic.
struct Notice {
    name: String,
    death: mpsc::UnboundedSender<String>,
    stopping: watch::Receiver<bool>,
}

impl Drop for Notice {
    fn drop(&mut self) {
        if !*self.stopping.borrow() {
            let _ = self.death.send(std::mem::take(&mut self.name));
        }
    }
}

/// A worker's life.
fn work(
    accept: impl Fn(Socket, ListenerHandle),
    mut orders: mpsc::UnboundedReceiver<Order>,
    mut stopping: watch::Receiver<bool>,
) {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return tracing::error!(%error, "A worker has no runtime"),
    };
    runtime.block_on(async {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Serve(socket, handle)) => accept(socket, handle),
                    None => break,
                },
                _ = stopping.wait_for(|stop| *stop) => break,
            }
        }
    });
    runtime.shutdown_timeout(TASK_GRACE);
}
