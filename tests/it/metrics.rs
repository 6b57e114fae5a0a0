//! The metrics of a supervisor that runs: over HTTP, as a file, and on demand.

use super::rig::sim::until;
use super::rig::visor::Rig;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

/// The status code and the body of a path.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
}

fn value(page: &str, metric: &str) -> Option<u64> {
    page.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn a_supervisor_serves_its_metrics_and_writes_them() {
    let rig = Rig::new();
    let file = rig.path().join("node.prom");
    let flags = ["--metrics-address", "127.0.0.1:0", "--metrics-textfile", file.to_str().unwrap()];
    let mut visor = rig.run_with(&flags, &["--mine"]);
    let line = visor.wait(&["event=metrics_served"]);
    let address = line.split("address=").nth(1).unwrap().trim().to_owned();
    visor.wait_head(3);
    // The snapshot may be a second old.
    let page = until("a page with that head", || {
        let page = get(&address, "/metrics").1;
        (value(&page, "wemixvisor_head_height") >= Some(3)).then_some(page)
    });
    assert_eq!(value(&page, "wemixvisor_up"), Some(1));
    assert_eq!(value(&page, "wemixvisor_node_starts_total"), Some(1));
    assert_eq!(value(&page, "wemixvisor_hook_failures_total"), Some(0));
    for path in ["/healthz", "/readyz"] {
        let (code, body) = get(&address, path);
        assert_eq!(code, "200", "{path}: {body}");
        assert!(body.starts_with("running, genesis, head "), "{body}");
    }
    until("the file", || file.exists().then_some(()));
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.starts_with("# HELP wemixvisor_up ") && text.ends_with('\n'), "{text}");
    assert_eq!(value(&rig.ok(&["status", "--metrics"]), "wemixvisor_node_starts_total"), Some(1));
    // A problem of a plan is none of the node, and still the operator's.
    fs::write(rig.of("state/schedule.json"), "{").unwrap();
    until("the problem", || (get(&address, "/healthz").0 == "503").then_some(()));
    assert_eq!(get(&address, "/readyz").0, "200");
    let told = get(&address, "/healthz").1;
    assert!(told.starts_with("plan_problem: ") && told.lines().count() == 1, "{told}");
    fs::remove_file(rig.of("state/schedule.json")).unwrap();
    assert_eq!(visor.stop(), 0);
}
