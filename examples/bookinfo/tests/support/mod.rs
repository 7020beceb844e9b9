//! The demo as a process of its own, on a mesh folder and a block of addresses of its own.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::{
    env, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bookinfo::{
    caller::{Caller as _, Plain},
    world::{World, copy_to_block},
};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Empty;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

/// Nothing in a test may take longer, however busy the machine is.
pub const LONG: Duration = Duration::from_secs(120);

/// How the services are joined to the mesh.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// A sidecar process for each.
    Sidecars,
    /// The mesh inside the one process.
    Embedded,
}

/// The shipped mesh folder in a place of its own, which is gone when the value is, and in a block of addresses (`127.BLOCK.…`)
/// that no other test has, in this process or in another.
pub struct Mesh {
    path: PathBuf,
    pub block: u8,
}

/// Whoever has this port in a block has the block.
const CLAIM: u16 = 20_999;

/// The blocks of this process, until it ends: what a test left behind in one is not another test's.
static CLAIMS: Mutex<Vec<TcpListener>> = Mutex::new(Vec::new());

impl Mesh {
    pub fn new() -> Self {
        let claim = |block: u8| {
            let claim = TcpListener::bind((Ipv4Addr::new(127, block, 255, 250), CLAIM)).ok();
            claim.map(|claim| (block, claim))
        };
        let (block, claim) = (100..=250).find_map(claim).expect("a free block");
        CLAIMS.lock().expect("no test panics here").push(claim);
        let name = format!("bookinfo-demo-{block}-{}", std::process::id());
        let path = env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        copy_to_block(&shipped("mesh"), &path, block).expect("a writable temporary folder");
        Self { path, block }
    }
}

impl std::ops::Deref for Mesh {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A running demo; it is killed, and its folder removed, when the value is dropped.
pub struct Demo {
    pub folder: Mesh,
    pub world: World,
    child: Child,
    output: Arc<Mutex<Vec<String>>>,
    readers: [JoinHandle<()>; 2],
    page: Plain,
}

impl Demo {
    /// Starts a demo and waits until it says that it is ready.
    pub async fn start(mode: Mode, arguments: &[&str]) -> Self {
        let folder = Mesh::new();
        let world = World::read(&folder).expect("a moved folder is whole");
        let mut command = Command::new(env!("CARGO_BIN_EXE_bookinfo"));
        command.arg("--mesh").arg(&*folder).args(arguments);
        if mode == Mode::Embedded {
            command.arg("--embedded");
        }
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("cargo built the program");
        let output = Arc::default();
        let readers = [
            read(child.stdout.take().expect("stdout is piped"), &output),
            read(child.stderr.take().expect("stderr is piped"), &output),
        ];
        let page = Plain::new(world.gateway.address);
        let mut demo = Self {
            folder,
            world,
            child,
            output,
            readers,
            page,
        };
        demo.until("it is ready", LONG, |text| text.contains("ready: http://"))
            .await;
        demo
    }

    /// All that it wrote so far.
    pub fn text(&self) -> String {
        self.output
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .join("\n")
    }

    /// Waits until what it wrote fulfils the condition.
    pub async fn until(&mut self, what: &str, within: Duration, so: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + within;
        while !so(&self.text()) {
            let ended = self.child.try_wait().expect("our own child");
            assert!(
                ended.is_none() || so(&self.text()),
                "ended ({ended:?}) before {what}:\n{}",
                self.text()
            );
            assert!(
                Instant::now() < deadline,
                "not within {within:?}: {what}\n{}",
                self.text()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// A request to the gateway, as `user` if there is one.
    pub async fn get(&self, path: &str, user: Option<&str>) -> (StatusCode, String) {
        fetch(
            &self.page,
            &self.world.gateway.address.to_string(),
            path,
            user,
        )
        .await
    }

    /// The product page.
    pub async fn page(&self, user: Option<&str>) -> Page {
        let (status, html) = self.get("/productpage", user).await;
        assert_eq!(status, StatusCode::OK, "{html}\n{}", self.text());
        Page(html)
    }

    /// So many pages.
    pub async fn pages(&self, number: usize, user: Option<&str>) -> Vec<Page> {
        let mut pages = Vec::new();
        for _ in 0..number {
            pages.push(self.page(user).await);
        }
        pages
    }

    /// Puts a file into the mesh folder.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.join(name), text).expect("a writable folder");
    }

    /// Takes a file out of the mesh folder.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.folder.join(name)).expect("a file that was put there");
    }

    pub fn id(&self) -> u32 {
        self.child.id().expect("a child that was not waited for")
    }

    /// Sends a signal (`INT`, `TERM`).
    pub async fn signal(&self, signal: &str) {
        kill(signal, self.id()).await;
    }

    /// Waits for its end: the exit code, all it wrote, and how long the end took.
    pub async fn end(mut self) -> (Option<i32>, String, Duration) {
        let start = Instant::now();
        let status = timeout(LONG, self.child.wait())
            .await
            .expect("the demo ends")
            .expect("our own child");
        let took = start.elapsed();
        // The pipes end with the last process that holds them.
        for reader in &mut self.readers {
            let _ = timeout(LONG, reader).await;
        }
        (status.code(), self.text(), took)
    }

    /// The process ids of its sidecars and gateway, with their command lines.
    pub fn proxies(&self) -> Vec<(u32, String)> {
        processes(&self.folder)
            .into_iter()
            .filter(|(id, _)| *id != self.id())
            .collect()
    }
}

/// One product page.
pub struct Page(pub String);

impl Page {
    /// Which version of reviews is behind it, by its stars; "?" if it says that ratings are missing.
    pub fn stars(&self) -> &'static str {
        let Self(html) = self;
        match () {
            () if html.contains("Error fetching product reviews") => "none",
            () if html.contains("Ratings service is currently unavailable") => "?",
            () if html.contains("text-black-500") => "black",
            () if html.contains("text-red-500") => "red",
            () => "v1",
        }
    }
}

/// A plain request, by way of `address`, to `authority`.
pub async fn fetch(
    by: &Plain,
    authority: &str,
    path: &str,
    user: Option<&str>,
) -> (StatusCode, String) {
    let mut request = Request::get(format!("http://{authority}{path}"));
    if let Some(user) = user {
        request = request.header("cookie", format!("session={user}"));
    }
    let request = request.body(Empty::<Bytes>::new()).expect("a request");
    match timeout(LONG, by.call(request))
        .await
        .expect("an answer in time")
    {
        Ok(answer) => (
            answer.status(),
            String::from_utf8_lossy(answer.body()).into_owned(),
        ),
        Err(error) => panic!("no answer for {authority}{path}: {error}"),
    }
}

/// A folder of this package.
pub fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The folder of Istio's own files for bookinfo, among the conformance cases beside the repository.
pub fn istio_samples() -> PathBuf {
    let roots = match env::var_os("MESH_CONFORMANCE") {
        Some(root) => vec![PathBuf::from(root)],
        None => Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .map(|ancestor| ancestor.join("shared/conformance"))
            .collect(),
    };
    roots
        .iter()
        .map(|root| root.join("istio-samples/bookinfo/networking"))
        .find(|folder| folder.is_dir())
        .expect("the conformance cases are beside the repository, or MESH_CONFORMANCE names them")
}

/// Processes whose command line names this folder.
pub fn processes(folder: &Path) -> Vec<(u32, String)> {
    let named = folder.to_string_lossy().into_owned();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let id = entry.file_name().to_str()?.parse().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            line.contains(&named).then_some((id, line))
        })
        .collect()
}

/// Sends a signal to a process.
pub async fn kill(signal: &str, id: u32) {
    let status = Command::new("kill")
        .arg(format!("-{signal}"))
        .arg(id.to_string())
        .status()
        .await;
    assert!(
        status.is_ok_and(|status| status.success()),
        "kill -{signal} {id}"
    );
}

/// Whether nothing listens there any more.
pub fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

fn read(
    from: impl AsyncRead + Send + Unpin + 'static,
    to: &Arc<Mutex<Vec<String>>>,
) -> JoinHandle<()> {
    let to = Arc::clone(to);
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            to.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    })
}
