//! Completions in the shells themselves. A shell that is not installed is passed over, with a word about it.

use crate::rig::visor::Rig;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Typed in a terminal of its own, since zsh completes nowhere else; what it has made of the line is echoed.
const ZSH: &str = r#"
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "autoload -Uz compinit; compinit -u -D; source $1; echo rea''dy"
zpty -r z out '*ready*'
zpty -w -n z $'wemixvisor upgrade wai\tv\t\C-aecho RE""SULT: \n'
zpty -r z out $'*RESULT: wemixvisor*\n'
print -r -- "$out"
"#;
const BASH: &str = r#"source "$1"
for line in "upgrade wa" "upgrade wait v"; do
    COMP_WORDS=(wemixvisor $line) COMP_CWORD=$(wc -w <<<"$line")
    _wemixvisor
    echo "${COMPREPLY[@]}"
done
complete -p wemixvisor
"#;
const FISH: &str = r#"source $argv[1]
complete -C "wemixvisor upgrade wa"
complete -C "wemixvisor upgrade wait v"
complete -C "wemixvisor plan apply /etc/passw"
"#;

/// The output of a script that has completed lines; `None` where there is no such shell.
fn completed(rig: &Rig, shell: &str, options: &[&str], script: &str) -> Option<String> {
    let program =
        ["/usr/bin", "/bin"].map(|dir| Path::new(dir).join(shell)).into_iter().find(|path| path.exists());
    let Some(program) = program else {
        println!("skipped: there is no {shell} here, so its completion was not tried (apt install {shell})");
        return None;
    };
    let completion = rig.path().join(format!("completion.{shell}"));
    std::fs::write(&completion, rig.ok(&["completion", shell])).unwrap();
    let ours = PathBuf::from(env!("CARGO_BIN_EXE_wemixvisor"));
    // A shell that waits for more must not wait for ever.
    let mut command = Command::new("timeout");
    command
        .arg("60")
        .arg(program)
        .args(options)
        .args(["-c", script])
        .args((shell != "fish").then_some(shell))
        .arg(&completion);
    command.env("PATH", format!("{}:/usr/bin:/bin", ours.parent().unwrap().display()));
    command.env("DAEMON_HOME", rig.home()).env("HOME", rig.path()).env("TERM", "dumb");
    let out = command.output().unwrap();
    assert!(out.status.success(), "{shell}: {}", String::from_utf8_lossy(&out.stderr));
    Some(String::from_utf8(out.stdout).unwrap())
}

#[test]
fn the_three_shells_complete_commands_and_names() {
    let rig = Rig::new();
    rig.stage("v7", &[]);
    if let Some(said) = completed(&rig, "bash", &["--norc"], BASH) {
        assert!(said.starts_with("wait\nv7\n") && said.contains("-o default -F _wemixvisor"), "{said}");
    }
    if let Some(said) = completed(&rig, "zsh", &["-f"], ZSH) {
        assert!(said.contains("RESULT: wemixvisor upgrade wait v7"), "{said}");
    }
    if let Some(said) = completed(&rig, "fish", &["-N"], FISH) {
        assert!(
            said.starts_with("wait\twait until") && said.contains("\nv7") && said.contains("/etc/passwd"),
            "{said}"
        );
    }
}
