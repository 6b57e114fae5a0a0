//! The page on migration: its commands are executed, in order, on what other supervisors leave behind. Paths are moved below
//! a directory of the test, and a script plays systemctl: it starts the `ExecStart` of the drop-in and stops what it started.

use super::rig::sim::{stamp, until};
use super::rig::visor::write_script;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wemixvisor");

/// Units run as a shell each, which notes the end of its child: whoever stops it waits for that.
const SYSTEMCTL: &str = r#"
for unit; do :; done
run=$ROOT/run/$unit
start() {
    rm -f "$run.ended"
    if [ "$unit" = wemixvisor ]; then
        files="$ROOT/usr/lib/systemd/system/wemixvisor.service $ROOT/etc/systemd/system/wemixvisor.service.d/node.conf"
        variables=$(sed -n 's/^Environment=//p' $files)
        command="env -i PATH=$PATH $variables $(sed -n 's/^ExecStart=//p' $files | tail -n 1)"
    else
        command=$(cat "$run.command")
    fi
    setsid sh -c "$command & echo \$! >$run.pid; wait \$!; echo \$? >$run.ended" >>"$run.log" 2>&1 </dev/null &
    while [ ! -s "$run.pid" ]; do sleep 0.01; done
    # Ready, as Type=notify has it.
    if [ "$unit" = wemixvisor ]; then
        until wemixvisor status --json 2>/dev/null | grep -q '"ready": *true'; do
            [ ! -e "$run.ended" ] || { cat "$run.log" >&2; exit 1; }
            sleep 0.05
        done
    fi
}
stop() {
    [ -s "$run.pid" ] || return 0
    kill "$(cat "$run.pid")" 2>/dev/null || :
    while [ ! -e "$run.ended" ]; do sleep 0.01; done
    rm "$run.pid"
}
case $* in
    'start '* | 'enable --now '*) start ;;
    'stop '* | 'disable --now '*) stop ;;
    daemon-reload) ;;
    *) echo "systemctl $*: not in this test" >&2; exit 1 ;;
esac
"#;

/// A machine with a node under another supervisor.
struct Machine {
    dir: tempfile::TempDir,
}

impl Machine {
    /// A node at `binary`, which the old unit starts with these arguments.
    fn new(unit: &str, binary: &str, args: &str) -> Machine {
        let machine = Machine { dir: tempfile::tempdir().unwrap() };
        for dir in ["run", "bin", "usr/lib/systemd/system", "var/lib", "etc/default"] {
            fs::create_dir_all(machine.at(dir)).unwrap();
        }
        symlink(PROGRAM, machine.at("bin/wemixvisor")).unwrap();
        write_script(&machine.at("bin/systemctl"), SYSTEMCTL);
        let shipped = include_str!("../../scripts/wemixvisor.service");
        fs::write(machine.at("usr/lib/systemd/system/wemixvisor.service"), machine.moved(shipped)).unwrap();
        machine.node(binary, "v1");
        let command = format!("{} {args}", machine.at(binary).display());
        fs::write(machine.at(&format!("run/{unit}.command")), machine.moved(&command)).unwrap();
        machine.sh(&format!("systemctl start {unit}"));
        machine
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// A binary of the simulated node.
    fn node(&self, path: &str, version: &str) {
        fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
        stamp(&self.at(path), &[("period", "20"), ("version", version)]);
    }

    /// The text with the paths of a machine below the directory of the test.
    fn moved(&self, text: &str) -> String {
        let root = self.dir.path().to_str().unwrap();
        let mut text =
            text.replace("/usr/bin/wemixvisor", PROGRAM).replace("/usr/local/bin/wemixvisor", PROGRAM);
        for prefix in ["/usr/local/bin/", "/srv/", "/opt/", "/etc/", "/var/lib/"] {
            text =
                text.replace(&format!("{root}{prefix}"), prefix).replace(prefix, &format!("{root}{prefix}"));
        }
        text
    }

    /// Runs these commands, all of which must succeed.
    #[track_caller]
    fn sh(&self, commands: &str) -> String {
        let script = self.at("commands");
        fs::write(&script, self.moved(commands)).unwrap();
        let path = format!("{}:/usr/bin:/bin", self.at("bin").display());
        let Output { status, stdout, stderr } = Command::new("timeout")
            .args(["120", "sh", "-eux"])
            .arg(&script)
            .env_clear()
            .env("PATH", path)
            .env("ROOT", self.dir.path())
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let (out, err) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success(), "{status}\n{out}\n{err}");
        out.into_owned()
    }

    /// Waits until the node of the new supervisor has a head.
    #[track_caller]
    fn is_supervised(&self, home: &str) {
        until("the node has a head", || {
            let status =
                self.sh(&format!("export DAEMON_HOME={home} DAEMON_NAME=gwemix\nwemixvisor status --json"));
            let status: Value = serde_json::from_str(&status).unwrap();
            status["head"]["height"].is_u64().then_some(())
        });
    }

    /// Whether exactly one node runs here.
    fn runs_one_node(&self, data: &str) -> bool {
        let pattern = self.moved(&format!("^[^ ]*gwemix --datadir {data}( |$)"));
        let found = Command::new("pgrep").args(["-fc", &pattern]).output().unwrap();
        String::from_utf8(found.stdout).unwrap().trim() == "1"
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let root = self.dir.path().to_str().unwrap();
        let found = Command::new("pgrep").args(["-f", root]).output().unwrap();
        for pid in String::from_utf8_lossy(&found.stdout).lines() {
            let _ = Command::new("kill").args(["-KILL", pid]).status();
        }
    }
}

/// The commands of a part of the page: all literal blocks between these two headings.
fn commands(from: &str, to: &str) -> String {
    let page = include_str!("../../man/wemixvisor-migrate.7");
    let part = page.split(from).nth(1).unwrap().split(to).next().unwrap();
    let blocks = part.split("\n.Bd -literal\n").skip(1).map(|block| block.split("\n.Ed").next().unwrap());
    blocks.map(|block| format!("{block}\n")).collect()
}

/// Executes a way there and the way back.
fn there(machine: &Machine, way: &str) -> String {
    machine.sh(&commands(&format!(".Sh {way}\n"), ".Ss The way back\n"))
}

fn and_back(machine: &Machine, way: &str, home: &str) {
    let page = include_str!("../../man/wemixvisor-migrate.7");
    assert!(page.contains(&format!(".Sh {way}\n")));
    let part = commands(&format!(".Sh {way}\n"), "\n.Sh ");
    let back = part.find("systemctl disable --now wemixvisor").unwrap();
    machine.sh(&format!("export DAEMON_HOME={home} DAEMON_NAME=gwemix\n{}", &part[back..]));
}

#[test]
fn from_cosmovisor_and_back() {
    let args = "--datadir /srv/wemix/data --mine";
    let machine = Machine::new("cosmovisor", "srv/wemix/cosmovisor/genesis/bin/gwemix", args);
    let cosmovisor = machine.at("srv/wemix/cosmovisor");
    machine.node("srv/wemix/cosmovisor/upgrades/v2/bin/gwemix", "v2");
    symlink("genesis", cosmovisor.join("current")).unwrap();
    write_script(&cosmovisor.join("preupgrade.sh"), "exit 0");
    fs::write(
        cosmovisor.join("config.toml"),
        "daemon_restart_delay = 2000000000\nunsafe_skip_backup = true\n",
    )
    .unwrap();
    let variables = "DAEMON_SHUTDOWN_GRACE=45s\nCOSMOVISOR_CUSTOM_PREUPGRADE=preupgrade.sh\nCOSMOVISOR_DISABLE_RECASE=false\n";
    fs::write(machine.at("etc/default/cosmovisor"), variables).unwrap();
    let batch =
        r#"[{"name":"V2","height":900000,"info":"{\"fork_height\":900500}"},{"name":"v3","height":950000}]"#;
    until("the node has its data", || machine.at("srv/wemix/data").is_dir().then_some(()));
    fs::write(machine.at("srv/wemix/data/upgrade-info.json.batch"), batch).unwrap();

    let said = there(&machine, "FROM COSMOVISOR");
    for part in [
        "taken DAEMON_SHUTDOWN_GRACE: daemon_shutdown_grace as daemon_shutdown_grace: 45s",
        "taken cosmovisor/preupgrade.sh as daemon_preupgrade: wemixvisor/imported-pre-upgrade",
        "taken cosmovisor/config.toml:1: daemon_restart_delay as daemon_restart_delay: 2s",
        "taken cosmovisor/config.toml:2: unsafe_skip_backup as unsafe_skip_backup: true",
        "left  COSMOVISOR_DISABLE_RECASE: cosmovisor_disable_recase: names of upgrades",
        "upgrade-info.json.batch as plan cosmovisor, of 2",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    machine.is_supervised("/srv/wemix");
    assert!(machine.runs_one_node("/srv/wemix/data"));
    let planned =
        machine.sh("export DAEMON_HOME=/srv/wemix DAEMON_NAME=gwemix\nwemixvisor upgrade list --json");
    for part in ["v2", "900000", "900500", "v3", "950000"] {
        assert!(planned.contains(part), "{part}: {planned}");
    }
    assert!(machine.at("srv/wemix/wemixvisor/imported-pre-upgrade").exists());

    and_back(&machine, "FROM COSMOVISOR", "/srv/wemix");
    until("the old one runs", || machine.runs_one_node("/srv/wemix/data").then_some(()));
    machine.sh("systemctl stop cosmovisor");
}

#[test]
fn from_gwemix_sh_and_back() {
    let args = "--datadir /opt/node --nodiscover --syncmode full --mine";
    let machine = Machine::new("gwemix", "opt/node/bin/gwemix", args);
    fs::create_dir_all(machine.at("opt/node/geth")).unwrap();
    write_script(&machine.at("opt/node/bin/gwemix.sh"), "exec systemctl start gwemix");
    there(&machine, "FROM GWEMIX.SH");
    machine.is_supervised("/var/lib/wemixvisor");
    assert!(machine.runs_one_node("/opt/node"));
    and_back(&machine, "FROM GWEMIX.SH", "/var/lib/wemixvisor");
    until("the old one runs", || machine.runs_one_node("/opt/node").then_some(()));
    machine.sh("systemctl stop gwemix");
}

#[test]
fn from_a_plain_unit_and_back() {
    let machine = Machine::new("gwemix", "usr/local/bin/gwemix", "--datadir /var/lib/gwemix --mine");
    until("the node has its data", || machine.at("var/lib/gwemix").is_dir().then_some(()));
    there(&machine, "FROM A PLAIN UNIT");
    machine.is_supervised("/var/lib/wemixvisor");
    assert!(machine.runs_one_node("/var/lib/gwemix"));
    machine.node("gwemix-v2", "v2");
    let afterwards = commands(".Sh AFTERWARDS\n", ".Sh SEE ALSO");
    machine.sh(&format!("export DAEMON_HOME=/var/lib/wemixvisor DAEMON_NAME=gwemix\n{afterwards}"));
    and_back(&machine, "FROM A PLAIN UNIT", "/var/lib/wemixvisor");
    until("the old one runs", || machine.runs_one_node("/var/lib/gwemix").then_some(()));
    machine.sh("systemctl stop gwemix");
}

#[test]
fn the_page_names_no_path_that_the_test_would_leave_alone() {
    let all = commands(".Sh DESCRIPTION", ".Sh SEE ALSO");
    let words =
        all.split(|c: char| c.is_whitespace() || "='\"^:".contains(c)).filter(|word| word.starts_with('/'));
    for word in words {
        let known =
            ["/srv/", "/opt/", "/etc/", "/var/lib/", "/usr/bin/wemixvisor", "/usr/local/bin/", "/dev/null"];
        assert!(known.iter().any(|prefix| word.starts_with(prefix)), "{word}");
    }
    assert!(Path::new(PROGRAM).is_absolute());
}
