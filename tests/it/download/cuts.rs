//! A file that is cut at a byte and resumed, over real connections.
//!
//! Every byte is cut at in the tests of the transfer itself; here it is some of them, at which
//! buffers, chunks and TLS records begin and end, and all of them in one download.

use super::{Rig, program};
use crate::rig::server::{Content, Server};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn cut_where_buffers_and_records_end() {
    let content = Content::new(program());
    let len = content.body.len();
    let cut = Arc::new(AtomicUsize::new(0));
    let at = Arc::clone(&cut);
    let server = Server::start(move |asked, conn| match asked.nth % 2 {
        0 => content.serve_until(asked, conn, at.load(Ordering::SeqCst)),
        _ => content.serve(asked, conn),
    });
    let edges = (0..len).step_by(8 * 1024).flat_map(|edge| [edge.saturating_sub(1), edge, edge + 1]);
    for at in edges.chain((1000..len).step_by(9973)).chain([len - 1]) {
        cut.store(at, Ordering::SeqCst);
        Rig::new([server.url("/node")]).install(&program());
        let asked = server.asked();
        assert_eq!(asked[asked.len() - 1].range(), Some(at).filter(|at| *at > 0), "{at}");
    }
}

#[test]
fn cut_again_and_again_in_one_download() {
    let content = Content::new(program());
    let server = Server::start(move |asked, conn| content.serve_until(asked, conn, 997 * (asked.nth + 1)));
    let mut rig = Rig::new([server.url("/node")]);
    rig.limits.retry.attempts = 1000;
    rig.install(&program());
    assert_eq!(server.count("/node"), program().len().div_ceil(997));
}
