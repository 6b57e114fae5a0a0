//! Plans that say where their binaries can be had.

use super::{upgrade, wait_applied};
use crate::rig::server::{Content, Server};
use crate::rig::sim::{PATIENCE, until};
use crate::rig::visor::Rig;
use serde_json::json;
use std::fs;
use std::sync::{Arc, Condvar, Mutex};
use wemixvisor::Digest;

/// A door that a server waits at.
#[derive(Clone, Default)]
struct Door(Arc<(Mutex<bool>, Condvar)>);

impl Door {
    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let closed = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(closed, PATIENCE, |open| !*open).unwrap());
    }
}

#[test]
fn binaries_are_fetched_by_the_command_or_by_the_supervisor() {
    let rig = Rig::new().set("DAEMON_ALLOW_DOWNLOAD_BINARIES", "true");
    let content = |version: &str| Content::new(fs::read(rig.binary(version, &[])).unwrap());
    let (v2, v3) = (content("v2"), content("v3"));
    let digest = |content: &Content| Digest::sha256(&content.body).hex();
    let (pin2, pin3) = (digest(&v2), digest(&v3));
    let door = Door::default();
    let closed = door.clone();
    let server = Server::start(move |asked, conn| match asked.path.as_str() {
        "/v2" => v2.serve(asked, conn),
        "/v3" if asked.nth == 0 => {
            let half = v3.body.len() / 2;
            let length = v3.body.len().to_string();
            conn.head("200 OK", &[("Content-Length", &length), ("ETag", &v3.etag)])?;
            conn.raw(&v3.body[..half])?;
            closed.wait();
            conn.raw(&v3.body[half..])
        }
        "/v3" => v3.serve(asked, conn),
        _ => conn.answer("404 Not Found", &[], b""),
    });
    let (at2, at3) = (server.url("/v2"), server.url("/v3"));

    // Without a supervisor the command fetches, and tells of what it cannot have.
    rig.ok(&["plan", "create", "p"]);
    rig.ok(&["plan", "add-upgrade", "p", "v2:30", "--sha256", &pin2, "--url", &at2]);
    let said = rig.ok(&["plan", "execute", "p"]);
    assert!(said.ends_with("  1 ready to be switched to\n"), "{said}");
    assert_eq!(rig.plan_status("p")["upgrades"][0]["binary"], json!({"state": "staged"}));
    rig.ok(&["plan", "create", "q", "v4:5000"]);
    rig.ok(&["plan", "add-upgrade", "q", "v5:6000", "--sha256", &pin2, "--url", &server.url("/none")]);
    let out = rig.output(&["plan", "execute", "q"]);
    let said = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(69), "{said}");
    assert!(
        said.contains("v4: the binary is missing") && said.contains("v5: ") && said.contains("404"),
        "{said}"
    );

    // A supervisor fetches by itself, and shows how far it is.
    let mut visor = rig.run();
    wait_applied(&mut visor, "v2");
    rig.ok(&["plan", "create", "r"]);
    rig.ok(&["plan", "add-upgrade", "r", "v3:60", "--sha256", &pin3, "--url", &at3]);
    let execute =
        rig.command(&["plan", "execute", "r"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let percent = until("half of it to be there", || {
        let status = rig.plan_status("r");
        let percent = upgrade(&status, "v3")["binary"]["percent"].as_u64()?;
        (percent >= 49).then_some(percent)
    });
    assert!(percent <= 50, "{percent}");
    let table = rig.ok(&["plan", "status", "r"]);
    assert!(table.contains(&format!("downloading {percent} %")), "{table}");
    // A pause ends the download, and the next goes on from there.
    rig.ok(&["plan", "pause", "r"]);
    door.open();
    let out = execute.wait_with_output().unwrap();
    assert!(out.status.success(), "{out:?}");
    rig.ok(&["plan", "resume", "r"]);
    wait_applied(&mut visor, "v3");
    let ranges: Vec<_> = server.asked().into_iter().filter(|a| a.path == "/v3").map(|a| a.range()).collect();
    assert!(matches!(ranges[..], [None, Some(1..)]), "{ranges:?}");
    assert_eq!(visor.stop(), 0);
}
