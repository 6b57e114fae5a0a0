//! Helper programs that behave in every way but well. `/bin/sh` plays them all.

use super::*;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

const LONG: Duration = Duration::from_secs(600);

fn sh<'a>(args: &'a [&'a str]) -> Program<'a> {
    let (path, dir) = (Path::new("/bin/sh"), Path::new("/"));
    Program::bare(path, args, dir, LONG, LONG)
}

fn script(text: &str) -> Ran {
    run(&sh(&["-c", text]), &Cancel::new().unwrap()).unwrap()
}

fn fifo() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RWXU).unwrap();
    (dir, path)
}

#[test]
fn exit_codes_signals_and_output_come_back() {
    assert_eq!(
        script("echo out; echo err >&2; exit 31"),
        Ran { end: End::Exited(31), output: "out\nerr\n".to_owned() }
    );
    assert_eq!(script("kill -9 $$").end, End::Signalled(9));
    assert_eq!(script("exit 0").last_words(), "no output");
    assert_eq!(script("printf 'a\\n b\\033[1mc \\n\\n'").last_words(), "b\\u{1b}[1mc");
}

#[test]
fn stdin_is_empty_and_the_environment_is_what_was_asked_for() {
    assert_eq!(script("cat; echo end").output, "end\n");
    // More than a pipe holds.
    let long = "a line\n".repeat(20_000);
    let counts = Program { input: Some(&long), ..sh(&["-c", "wc -l"]) };
    assert_eq!(run(&counts, &Cancel::new().unwrap()).unwrap().output.trim(), "20000");
    let env = vec![("UPGRADE_NAME", OsString::from("v2"))];
    let program = Program {
        env,
        dir: Path::new("/tmp"),
        ..sh(&["-c", "pwd; env | sed -n 's/^\\([A-Za-z_][A-Za-z0-9_]*\\)=.*/\\1/p'"])
    };
    let seen = |program: &Program<'_>| {
        let output = run(program, &Cancel::new().unwrap()).unwrap().output;
        let (dir, names) = output.split_once('\n').unwrap();
        assert_eq!(dir, "/tmp");
        names.lines().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    // The shell adds the last four.
    let allowed = ["PATH", "HOME", "UPGRADE_NAME", "PWD", "OLDPWD", "SHLVL", "_"].map(str::to_owned);
    let few = seen(&program);
    assert!(few.contains("UPGRADE_NAME") && few.is_subset(&BTreeSet::from(allowed)), "{few:?}");
    let ours: BTreeSet<_> = std::env::vars().map(|(name, _)| name).collect();
    let all = seen(&Program { inherit: true, ..program });
    assert!(all.contains("UPGRADE_NAME") && ours.is_subset(&all), "{all:?}");
}

#[test]
fn a_flood_is_kept_at_both_ends_and_counted() {
    let ran = script(
        "echo first; i=0; while [ $i -lt 3000 ]; do echo 'a line of fifty bytes, give or take a few of them'; i=$((i+1)); done; echo last",
    );
    assert_eq!(ran.end, End::Exited(0));
    assert!(ran.output.starts_with("first\n") && ran.output.ends_with("last\n"));
    assert!(ran.output.contains("bytes left out]"));
    assert!(ran.output.len() < 2 * KEPT + 100);
}

#[test]
fn what_takes_too_long_is_ended() {
    let program = Program { timeout: Duration::from_millis(20), ..sh(&["-c", "echo up; exec sleep 1000"]) };
    assert_eq!(run(&program, &Cancel::new().unwrap()).unwrap().end, End::TimedOut);
    let deaf = Program { grace: Duration::from_millis(20), ..program.clone() };
    let deaf = Program { args: &["-c", "trap '' TERM; while :; do sleep 1000; done"], ..deaf };
    assert_eq!(run(&deaf, &Cancel::new().unwrap()).unwrap().end, End::TimedOut);
}

/// The reading end reports end of file only when every process of the group is gone.
#[test]
fn cancelling_ends_the_whole_group_even_if_it_is_deaf() {
    let (_dir, path) = fifo();
    let cancel = Cancel::new().unwrap();
    let body = "trap '' TERM; exec 9>\"$0\"; (while :; do sleep 1000; done) & echo up >&9; wait";
    let (end, rest) = std::thread::scope(|scope| {
        let job = scope.spawn(|| {
            let args = ["-c", body, path.to_str().unwrap()];
            run(&Program { grace: Duration::from_millis(20), ..sh(&args) }, &cancel).unwrap().end
        });
        let mut reader = BufReader::new(File::open(&path).unwrap());
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "up\n");
        cancel.cancel();
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        (job.join().unwrap(), rest)
    });
    assert_eq!((end, rest.as_str()), (End::Cancelled, ""));
    assert_eq!(run(&sh(&["-c", "exit 3"]), &cancel).unwrap().end, End::Cancelled);
}

#[test]
fn what_a_program_leaves_in_its_group_is_killed_when_it_ends() {
    let (_dir, path) = fifo();
    let end = std::thread::scope(|scope| {
        let job = scope.spawn(|| {
            let args =
                ["-c", "exec 9>\"$0\"; (while :; do sleep 1000; done) & exit 7", path.to_str().unwrap()];
            run(&sh(&args), &Cancel::new().unwrap()).unwrap().end
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        job.join().unwrap()
    });
    assert_eq!(end, End::Exited(7));
}

#[test]
fn what_cannot_be_executed_says_why() {
    let cancel = Cancel::new().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x");
    let reason = || run(&Program { path: &path, ..sh(&[]) }, &cancel).unwrap_err().to_string();
    assert!(reason().contains("execute"));
    fs::write(&path, "#!/does/not/exist\n").unwrap();
    assert!(reason().contains("make it executable"), "{}", reason());
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    assert!(reason().contains("interpreter"), "{}", reason());
    fs::write(&path, "exit 0").unwrap();
    assert!(reason().contains("#! line"), "{}", reason());
}
