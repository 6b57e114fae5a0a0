//! A fake HTTP server that answers as a test tells it to, also when no real server ever would.
//!
//! A connection serves one request and ends. A test gives a function that is told what was asked and
//! writes bytes; what the client asked is remembered. Nothing here sleeps: a server that stalls waits for
//! its client to hang up, and one that is slow waits for that with a limit.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// One request as the server saw it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// The method.
    pub(crate) method: String,
    /// The path with its query; for a proxy, what it was asked for.
    pub(crate) path: String,
    /// How many requests for this path came before.
    pub(crate) nth: usize,
    headers: Vec<(String, String)>,
    /// The bytes behind the headers, where these say how many.
    pub(crate) body: Vec<u8>,
}

impl Asked {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Where the range begins that was asked for.
    pub(crate) fn range(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// The connection to one client.
pub(crate) struct Conn {
    stream: Stream,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<rustls::StreamOwned<rustls::ServerConnection, TcpStream>>),
}

impl Conn {
    /// Writes bytes as they are.
    pub(crate) fn raw(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match &mut self.stream {
            Stream::Plain(s) => s.write_all(bytes.as_ref()),
            Stream::Tls(s) => s.write_all(bytes.as_ref()).and_then(|()| s.flush()),
        }
    }

    /// Writes the head of an answer.
    pub(crate) fn head(&mut self, status: &str, headers: &[(&str, &str)]) -> io::Result<()> {
        let lines: String = headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
        self.raw(format!("HTTP/1.1 {status}\r\nConnection: close\r\n{lines}\r\n"))
    }

    /// Writes a whole answer of a known length.
    pub(crate) fn answer(&mut self, status: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let length = body.len().to_string();
        let mut all = vec![("Content-Length", length.as_str())];
        all.extend_from_slice(headers);
        self.head(status, &all)?;
        self.raw(body)
    }

    /// Waits until the client hangs up.
    pub(crate) fn stall(&mut self) -> io::Result<()> {
        self.socket().set_read_timeout(None)?;
        while self.socket().read(&mut [0; 1024])? > 0 {}
        Ok(())
    }

    /// Lets some time pass, or ends with an error when the client hangs up.
    pub(crate) fn dawdle(&mut self, time: Duration) -> io::Result<()> {
        self.socket().set_read_timeout(Some(time))?;
        match self.socket().read(&mut [0; 1]) {
            Ok(_) => Err(io::ErrorKind::ConnectionAborted.into()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Connects the client with another server, as a proxy does.
    pub(crate) fn tunnel(&mut self, to: SocketAddr) -> io::Result<()> {
        let mut there = TcpStream::connect(to)?;
        let (mut back_from, mut back_to) = (there.try_clone()?, self.socket().try_clone()?);
        let back = thread::spawn(move || {
            let _ = io::copy(&mut back_from, &mut back_to);
            let _ = back_to.shutdown(Shutdown::Both);
        });
        let mut here = self.socket().try_clone()?;
        let _ = io::copy(&mut here, &mut there);
        let _ = there.shutdown(Shutdown::Both);
        back.join().map_err(|_| io::ErrorKind::Other.into())
    }

    /// The same, but what comes back comes a byte at a time after the first `fast` bytes.
    pub(crate) fn tunnel_slowly(&mut self, to: SocketAddr, fast: usize, pause: Duration) -> io::Result<()> {
        let there = TcpStream::connect(to)?;
        let (mut forth_from, mut forth_to) = (self.socket().try_clone()?, there.try_clone()?);
        let forth = thread::spawn(move || {
            let _ = io::copy(&mut forth_from, &mut forth_to);
            let _ = forth_to.shutdown(Shutdown::Both);
        });
        let mut back = self.socket().try_clone()?;
        for (index, byte) in io::BufReader::new(there).bytes().enumerate() {
            if index >= fast {
                thread::sleep(pause);
            }
            if back.write_all(&[byte?]).is_err() {
                break;
            }
        }
        let _ = back.shutdown(Shutdown::Both);
        forth.join().map_err(|_| io::ErrorKind::Other.into())
    }

    /// The bare socket, also below TLS.
    pub(crate) fn socket(&mut self) -> &mut TcpStream {
        match &mut self.stream {
            Stream::Plain(s) => s,
            Stream::Tls(s) => &mut s.sock,
        }
    }

    /// Reads a request; how many came before is not known here.
    fn read_request(&mut self) -> io::Result<Asked> {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"\r\n\r\n") {
            let n = match &mut self.stream {
                Stream::Plain(s) => s.read(&mut byte)?,
                Stream::Tls(s) => s.read(&mut byte)?,
            };
            if n == 0 || text.len() > 64 * 1024 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            text.push(byte[0]);
            if text == [0x16] {
                // The first byte of TLS.
                self.raw("HTTP/1.1 400 Bad Request\r\n\r\n")?;
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines = text.lines();
        let mut first = lines.next().unwrap_or_default().split(' ');
        let mut word = || first.next().unwrap_or_default().to_owned();
        let (method, path) = (word(), word());
        let headers = lines.filter_map(|l| l.split_once(": ").map(|(n, v)| (n.to_owned(), v.to_owned())));
        let mut asked = Asked { method, path, nth: 0, headers: headers.collect(), body: Vec::new() };
        let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        asked.body.resize(length, 0);
        match &mut self.stream {
            Stream::Plain(s) => s.read_exact(&mut asked.body)?,
            Stream::Tls(s) => s.read_exact(&mut asked.body)?,
        }
        Ok(asked)
    }

    /// Ends a TLS connection as the protocol wants it, so that its end is not taken for a cut.
    fn finish(&mut self) {
        if let Stream::Tls(s) = &mut self.stream {
            s.conn.send_close_notify();
            let _ = s.flush();
        }
    }
}

type Script = dyn Fn(&Asked, &mut Conn) -> io::Result<()> + Send + Sync;

/// A running server. It ends when dropped.
pub(crate) struct Server {
    addr: SocketAddr,
    scheme: &'static str,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// A server that answers by `script`. If that ends with an error, the connection is just cut.
    pub(crate) fn start(
        script: impl Fn(&Asked, &mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Server::run(None, Arc::new(script))
    }

    /// The same behind TLS, with a certificate and key in PEM.
    pub(crate) fn tls(
        pem: &[u8],
        script: impl Fn(&Asked, &mut Conn) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        use rustls::pki_types::pem::PemObject as _;
        use rustls::pki_types::{CertificateDer, PrivateKeyDer};
        let chain = CertificateDer::pem_slice_iter(pem).map(Result::unwrap).collect();
        let key = PrivateKeyDer::from_pem_slice(pem).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Server::run(Some(Arc::new(config)), Arc::new(script))
    }

    /// The address of a port where no process listens.
    pub(crate) fn unused() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    }

    fn run(tls: Option<Arc<rustls::ServerConfig>>, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let asked = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (log, stopped) = (Arc::clone(&asked), Arc::clone(&stop));
        let counts = Arc::new(Mutex::new(HashMap::new()));
        let thread = thread::spawn(move || {
            let mut open: Vec<(TcpStream, JoinHandle<()>)> = Vec::new();
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    break;
                }
                open.retain(|(_, thread)| !thread.is_finished());
                let (Ok(handle), Ok(end)) = (stream.try_clone(), stream.try_clone()) else { continue };
                let (tls, script) = (tls.clone(), Arc::clone(&script));
                let (log, counts) = (Arc::clone(&log), Arc::clone(&counts));
                let serve = move || {
                    // A client that hangs up in the middle is part of many tests.
                    let _ = serve(stream, tls, &*script, &log, &counts);
                    // The handle that is kept to end us would keep the connection open.
                    let _ = end.shutdown(Shutdown::Both);
                };
                open.push((handle, thread::spawn(serve)));
            }
            for (stream, thread) in open {
                let _ = stream.shutdown(Shutdown::Both);
                let _ = thread.join();
            }
        });
        Server { addr, scheme, asked, stop, thread: Some(thread) }
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.addr)
    }

    /// The requests so far, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often a path was asked for.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.asked().iter().filter(|a| a.path == path).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        // Wakes the thread that waits for connections.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    script: &Script,
    log: &Mutex<Vec<Asked>>,
    counts: &Mutex<HashMap<String, usize>>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = match tls {
        None => Stream::Plain(stream),
        Some(config) => {
            let session = rustls::ServerConnection::new(config).map_err(io::Error::other)?;
            Stream::Tls(Box::new(rustls::StreamOwned::new(session, stream)))
        }
    };
    let mut conn = Conn { stream };
    let mut asked = conn.read_request()?;
    {
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(asked.path.clone()).or_insert(0);
        asked.nth = *count;
        *count += 1;
    }
    log.lock().unwrap().push(asked.clone());
    script(&asked, &mut conn)?;
    conn.finish();
    Ok(())
}

/// A file as a good server serves it: with a strong tag, ranges and `If-Range`.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    /// The bytes.
    pub(crate) body: Vec<u8>,
    /// The tag, with its quotes.
    pub(crate) etag: String,
}

impl Content {
    /// Content with a tag of its own.
    pub(crate) fn new(body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        let etag = format!("\"{}\"", wemixvisor::Digest::sha256(&body).hex());
        Content { body, etag }
    }

    /// Answers well.
    pub(crate) fn serve(&self, asked: &Asked, conn: &mut Conn) -> io::Result<()> {
        self.serve_until(asked, conn, self.body.len())
    }

    /// Answers well, but cuts the connection before byte `end` of the file.
    pub(crate) fn serve_until(&self, asked: &Asked, conn: &mut Conn, end: usize) -> io::Result<()> {
        let len = self.body.len();
        let end = end.min(len);
        let same = asked.header("if-range").is_none_or(|tag| tag == self.etag);
        match asked.range().filter(|_| same) {
            Some(start) if start >= len => {
                conn.answer(
                    "416 Range Not Satisfiable",
                    &[("Content-Range", &format!("bytes */{len}"))],
                    b"",
                )?;
            }
            Some(start) => {
                let range = format!("bytes {start}-{}/{len}", len - 1);
                let length = (len - start).to_string();
                let headers =
                    [("Content-Range", range.as_str()), ("Content-Length", &length), ("ETag", &self.etag)];
                conn.head("206 Partial Content", &headers)?;
                conn.raw(&self.body[start..end.max(start)])?;
            }
            None => {
                let headers = [("Content-Length", len.to_string()), ("ETag", self.etag.clone())];
                conn.head("200 OK", &headers.each_ref().map(|(n, v)| (*n, v.as_str())))?;
                conn.raw(&self.body[..end])?;
            }
        }
        if end < len { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}
