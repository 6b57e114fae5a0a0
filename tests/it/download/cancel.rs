//! A download that is cancelled ends at once, wherever it is, and keeps what has arrived.

use super::{Rig, program};
use crate::rig::server::{Asked, Conn, Content, Server};
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use wemixvisor::Kind;

/// Cancels when the server says that it is there, and returns the rig.
fn cancelled(
    script: impl Fn(&Asked, &mut Conn, &Sender<()>) -> io::Result<()> + Send + Sync + 'static,
) -> Rig {
    let (tell, told) = channel();
    let tell = std::sync::Mutex::new(tell);
    let server = Server::start(move |asked, conn| {
        let tell = tell.lock().unwrap().clone();
        script(asked, conn, &tell)
    });
    let mut rig = Rig::new([server.url("/node")]);
    rig.limits.retry.first_wait = std::time::Duration::from_secs(3600);
    rig.limits.retry.longest_wait = std::time::Duration::from_secs(3600);
    let cancel = rig.cancel.clone();
    let canceller = thread::spawn(move || {
        told.recv().unwrap();
        cancel.cancel();
    });
    let err = rig.refuse();
    canceller.join().unwrap();
    assert_eq!(err.kind(), Kind::Failed);
    assert!(err.to_string().contains("cancelled"), "{err}");
    rig
}

#[test]
fn while_it_waits_for_an_answer() {
    cancelled(|_, conn, there| {
        there.send(()).unwrap();
        conn.stall()
    });
}

#[test]
fn while_bytes_arrive() {
    let content = Content::new(program());
    let rig = cancelled(move |asked, conn, there| {
        let _ = content.serve_until(asked, conn, 20_000);
        there.send(()).unwrap();
        conn.stall()
    });
    let kept = std::fs::read(rig.home.downloads().join("v2.partial")).unwrap();
    assert!(program().starts_with(&kept));
}

#[test]
fn while_it_waits_to_try_again() {
    cancelled(|_, _, there| {
        there.send(()).unwrap();
        Ok(())
    });
}

#[test]
fn before_it_begins() {
    let server = Server::start(|_, conn| conn.answer("200 OK", &[], &program()));
    let rig = Rig::new([server.url("/node")]);
    rig.cancel.cancel();
    assert!(rig.refuse().to_string().contains("cancelled"));
    assert_eq!(server.asked().len(), 0);
}

#[test]
fn what_has_arrived_is_continued_later() {
    let content = Content::new(program());
    let server = Server::start(move |asked, conn| {
        if asked.nth > 0 {
            return content.serve(asked, conn);
        }
        let _ = content.serve_until(asked, conn, 20_000);
        conn.stall()
    });
    let rig = Rig::new([server.url("/node")]);
    let (cancel, order) = (
        rig.cancel.clone(),
        wemixvisor::inside::download::Order { home: &rig.home, upgrade: &rig.upgrade, urls: &rig.urls },
    );
    let downloader =
        wemixvisor::inside::download::Downloader::new(&rig.config, rig.limits, rig.retry_after.clone())
            .unwrap();
    let stop_at_half = &mut |progress: wemixvisor::inside::download::Progress<'_>| {
        if progress.received == 20_000 {
            cancel.cancel();
        }
    };
    downloader.fetch(&order, stop_at_half, &rig.cancel).unwrap_err();
    let again = Rig { cancel: wemixvisor::inside::Cancel::new().unwrap(), ..rig };
    again.install(&program());
    assert_eq!(server.asked()[1].range(), Some(20_000));
}
