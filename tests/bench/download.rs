//! Download and verification of 200 MB, beside curl and sha256sum.

use super::rig::{Home, Outcome, Setup, now, sh};
use super::table::{Budget, Row};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

const SIZE: usize = 200_000_000;

pub(crate) fn all(setup: &Setup) -> Outcome<Vec<Row>> {
    let home = Home::new(setup, &setup.dir, &[], &[])?;
    // A program may be followed by anything.
    let mut body = fs::read(&setup.simnode)?;
    let mut noise = 1u64;
    while body.len() < SIZE {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        body.extend((noise >> 16).to_le_bytes());
    }
    let file = home.dir.path().join("original");
    fs::write(&file, &body)?;
    let sum = sh("sha256sum", &[&file.display().to_string()])?;
    let sum = sum.split(' ').next().unwrap_or_default().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/gwemix", listener.local_addr()?);
    // It ends with this process.
    thread::spawn(move || serve(&listener, &Arc::new(body)));
    let copy = home.dir.path().join("copy").display().to_string();
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..setup.rounds {
        let name = format!("v{round}");
        let begun = now();
        home.visor(&["upgrade", "fetch", &name, "--url", &url, "--sha256", &sum])?;
        ours.push(now() - begun);
        fs::remove_dir_all(home.dir.path().join("home/wemixvisor/upgrades").join(&name))?;
        let begun = now();
        sh("curl", &["-sSf", "-o", &copy, &url])?;
        if !sh("sha256sum", &[&copy])?.starts_with(&sum) {
            return Err("curl has fetched something else".into());
        }
        theirs.push(now() - begun);
        fs::remove_file(&copy)?;
    }
    let row = Row::new("download, verify and make durable 200 MB", "ms", ours);
    Ok(vec![row.beside("curl, then sha256sum", theirs).budget(Budget::Times(1.0))])
}

/// Serves the same file to every request.
fn serve(listener: &TcpListener, body: &Arc<Vec<u8>>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let body = Arc::clone(body);
        // A client that hangs up is its own affair.
        thread::spawn(move || answer(stream, &body));
    }
}

fn answer(mut stream: TcpStream, body: &[u8]) -> std::io::Result<()> {
    for line in BufReader::new(&stream).lines() {
        if line?.is_empty() {
            break;
        }
    }
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(body)
}
