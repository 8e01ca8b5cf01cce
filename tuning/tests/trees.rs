//! Copied hosts on which the tuner is tested: `trees/*.tree` hold the files of one machine each, written by hand from the
//! kernel's documented formats. Every test unpacks one into a directory of its own and works there through `--root`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use ringlane_tune::plan::Plan;
use ringlane_tune::state::StateFile;
use ringlane_tune::{Deployment, Finding, Host, Verdict, apply, check_host, knobs};

const TREES: [&str; 4] = ["bare_metal", "vm", "container", "arm64"];

struct Tree(tempfile::TempDir);

impl Tree {
    fn unpack(name: &str) -> Tree {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/trees/{name}.tree"));
        let text = fs::read_to_string(source).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for file in text.split("\n-- /").skip(1).map(|part| part.split_once(" --\n").unwrap_or((part, ""))) {
            let (path, content) = (file.0.trim_end_matches(" --"), file.1);
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // The newline before the next header was taken by the split.
            fs::write(path, if content.is_empty() { String::new() } else { format!("{content}\n") }).unwrap();
        }
        Tree(dir)
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn state(&self) -> PathBuf {
        self.root().join("var/lib/ringlane-tune/state.json")
    }

    fn tune(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_ringlane-tune"))
            .arg("--root")
            .arg(self.root())
            .args(arguments)
            .output()
            .unwrap()
    }

    fn put(&self, path: &str, content: &str) {
        fs::write(self.root().join(path), content).unwrap();
    }

    fn get(&self, path: &str) -> String {
        fs::read_to_string(self.root().join(path)).unwrap()
    }

    fn check(&self) -> Vec<Finding> {
        check_host(self.root(), &Deployment::default())
    }

    fn find(&self, knob: &str, item: &str) -> Finding {
        let found = self.check();
        let at = found.iter().find(|f| f.knob == knob && f.item == item);
        at.unwrap_or_else(|| panic!("no {knob} {item} in {found:#?}")).clone()
    }

    /// Every file and directory with its bytes.
    fn snapshot(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        let mut all = BTreeMap::new();
        let mut todo = vec![self.root().to_path_buf()];
        while let Some(dir) = todo.pop() {
            for entry in fs::read_dir(&dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    todo.push(path.clone());
                    all.insert(path, None);
                } else {
                    let bytes = fs::read(&path).unwrap();
                    all.insert(path, Some(bytes));
                }
            }
        }
        all
    }
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn apply_mends_what_it_can_twice_changes_nothing_and_undo_restores_every_byte() {
    for name in TREES {
        let tree = Tree::unpack(name);
        let before = tree.snapshot();
        let mendable = tree.check().iter().filter(|finding| finding.applies).count();

        let first = tree.tune(&["apply"]);
        assert!(first.status.success(), "{name}: {}{}", stdout(&first), stderr(&first));
        let after = tree.snapshot();
        assert_eq!(after == before, mendable == 0, "{name}: {mendable} findings to mend");
        let left: Vec<_> = tree.check().into_iter().filter(|finding| finding.applies).collect();
        assert!(left.is_empty(), "{name}: still to mend after apply: {left:#?}");

        let second = tree.tune(&["apply"]);
        assert_eq!(stdout(&second).trim(), "nothing to do", "{name}");
        assert!(tree.snapshot() == after, "{name}: the second apply changed something");

        let undo = tree.tune(&["undo"]);
        assert!(undo.status.success(), "{name}: {}{}", stdout(&undo), stderr(&undo));
        assert!(tree.snapshot() == before, "{name}: undo did not restore the tree\n{}", stdout(&undo));
        let again = tree.tune(&["undo"]);
        assert!(again.status.success() && stdout(&again).trim() == "nothing to undo", "{name}");
    }
}

#[test]
fn a_crash_at_any_moment_of_apply_leaves_a_state_from_which_undo_works() {
    // Every moment of a short run, and samples of a long one: each costs as many synced files as it makes changes.
    for (name, step) in [("vm", 1), ("bare_metal", 13)] {
        let tree = Tree::unpack(name);
        let before = tree.snapshot();
        let host = Host::at(tree.root());
        let plan = Plan::new(&host, &Deployment::default()).unwrap();
        for crash_at in (0..).step_by(step) {
            let mut moment = 0;
            let crashed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let mut file = StateFile::create(&host, &tree.state()).unwrap();
                let mut strike = |_| {
                    // Unwinds without the panic hook's noise, and without running anything of `apply` again.
                    if moment == crash_at {
                        std::panic::resume_unwind(Box::new("crash"));
                    }
                    moment += 1;
                };
                apply::apply(&host, &plan, &knobs::ALL, &mut file, &mut strike, &mut |_| {}).unwrap();
            }))
            .is_err();
            assert!(tree.state().exists());
            let undo = tree.tune(&["undo"]);
            assert!(undo.status.success(), "{name} at {crash_at}: {}", stderr(&undo));
            assert!(tree.snapshot() == before, "{name}: crash at moment {crash_at}, undo left something");
            if !crashed {
                assert!(moment >= 30, "{name}: only {moment} moments; the test has lost its subject");
                break;
            }
        }
    }
}

#[test]
fn a_dry_run_and_a_script_change_nothing() {
    for name in TREES {
        let tree = Tree::unpack(name);
        let before = tree.snapshot();
        for arguments in [&["apply", "--dry-run"][..], &["script"], &["check"], &["list"], &["script", "--sysctl"]] {
            let output = tree.tune(arguments);
            assert!(stderr(&output).is_empty(), "{name} {arguments:?}: {}", stderr(&output));
        }
        assert!(tree.snapshot() == before, "{name}");
    }
}

#[test]
fn the_script_is_shell_and_json_is_json() {
    for name in TREES {
        let tree = Tree::unpack(name);
        let script = stdout(&tree.tune(&["script"]));
        let file = tree.root().join("script.sh");
        fs::write(&file, script).unwrap();
        assert!(Command::new("sh").arg("-n").arg(&file).status().unwrap().success(), "{name}");
        for arguments in [&["check", "--json"][..], &["list", "--json"], &["apply", "--dry-run", "--output", "json"]] {
            let text = stdout(&tree.tune(arguments));
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(value.is_array(), "{name} {arguments:?}");
        }
    }
}

#[test]
fn check_exits_0_only_when_nothing_is_short() {
    let tree = Tree::unpack("vm");
    assert_eq!(tree.tune(&["check", "somaxconn"]).status.code(), Some(1));
    assert!(tree.tune(&["apply", "somaxconn"]).status.success());
    assert_eq!(tree.tune(&["check", "somaxconn"]).status.code(), Some(0));
    assert_eq!(tree.get("proc/sys/net/core/somaxconn"), "4096\n");
}

#[test]
fn what_somebody_else_changed_since_is_left_alone_unless_forced() {
    let tree = Tree::unpack("vm");
    assert!(tree.tune(&["apply", "somaxconn", "swappiness"]).status.success());
    tree.put("proc/sys/net/core/somaxconn", "9999\n");
    let undo = tree.tune(&["undo"]);
    assert!(undo.status.success() && stdout(&undo).contains("changed by someone else"), "{}", stdout(&undo));
    assert_eq!(tree.get("proc/sys/net/core/somaxconn"), "9999\n");
    assert_eq!(tree.get("proc/sys/vm/swappiness"), "60\n");
    assert!(tree.tune(&["undo", "--force"]).status.success());
    assert_eq!(tree.get("proc/sys/net/core/somaxconn"), "128\n");
    assert!(!tree.state().exists());
}

#[test]
fn a_second_apply_keeps_the_first_value_to_go_back_to() {
    let tree = Tree::unpack("vm");
    assert!(tree.tune(&["apply", "somaxconn"]).status.success());
    tree.put("proc/sys/net/core/somaxconn", "256\n");
    assert!(tree.tune(&["apply", "somaxconn"]).status.success());
    assert!(tree.tune(&["undo"]).status.success());
    assert_eq!(tree.get("proc/sys/net/core/somaxconn"), "128\n");
}

#[test]
fn a_restart_has_undone_everything() {
    let tree = Tree::unpack("vm");
    assert!(tree.tune(&["apply", "somaxconn"]).status.success());
    tree.put("proc/sys/kernel/random/boot_id", "another-boot\n");
    tree.put("proc/sys/net/core/somaxconn", "512\n");
    let undo = tree.tune(&["undo"]);
    assert!(undo.status.success() && stdout(&undo).trim() == "nothing to undo", "{}", stdout(&undo));
    assert_eq!(tree.get("proc/sys/net/core/somaxconn"), "512\n");
    assert!(!tree.state().parent().unwrap().exists());
}

/// One line on standard error that says what to do, exit code 2, nothing changed.
fn refuses(tree: &Tree, arguments: &[&str], says: &str) {
    let before = tree.snapshot();
    let output = tree.tune(arguments);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
    assert_eq!(said.trim().lines().count(), 1, "{arguments:?}: {said}");
    assert!(said.contains(says), "{arguments:?}: {said}");
    assert!(tree.snapshot() == before, "{arguments:?} changed something");
}

#[test]
fn bad_arguments_say_what_to_do() {
    let tree = Tree::unpack("bare_metal");
    refuses(&tree, &["check", "swapiness"], "`swappiness`");
    refuses(&tree, &["apply", "somaxconn", "nonsense"], "nearest");
    refuses(&tree, &["undo", "irq-afinity"], "nearest");
    refuses(&tree, &["check", "--nic", "eth9"], "ens1f0np0");
    refuses(&tree, &["check", "--nic", "../../etc"], "no interface");
    refuses(&tree, &["check", "--disk", "sda"], "nvme0n1");
    refuses(&tree, &["check", "--cores", "0-99"], "online are 0-7");
    refuses(&tree, &["check", "--cores", "zero"], "0-3,8");
    refuses(&tree, &["check", "--cores", "1,1"], "twice");
    refuses(&tree, &["check", "--port", "65535"], "--port");
}

#[test]
fn a_foreign_newer_or_damaged_state_file_is_refused() {
    let tree = Tree::unpack("vm");
    assert!(tree.tune(&["apply", "somaxconn"]).status.success());
    let good = fs::read_to_string(tree.state()).unwrap();
    for (text, says) in [
        (good.replace("\"version\": 1", "\"version\": 7"), "version 7"),
        (good.replace("11112222", "99992222"), "another host"),
        ("{}".to_string(), "not one of"),
        (good.chars().take(40).collect(), "not one of"),
        ("{\"version\": 1}".to_string(), "damaged"),
    ] {
        fs::write(tree.state(), text).unwrap();
        refuses(&tree, &["undo"], says);
        refuses(&tree, &["apply", "swappiness"], says);
    }
    fs::write(tree.state(), good).unwrap();
    assert!(tree.tune(&["undo"]).status.success());
}

#[test]
fn odd_contents_are_findings_and_not_failures() {
    let tree = Tree::unpack("bare_metal");
    let files: Vec<_> = tree
        .snapshot()
        .into_iter()
        .filter(|(path, bytes)| {
            bytes.is_some() && !path.ends_with("proc/self/mounts") && !path.ends_with("etc/machine-id")
        })
        .collect();
    for odd in [&b"\xff\xfe\x00"[..], b"", b"\n", b"-5\n", b"99999999999999999999999\n", b"[ ] [[]]\n", b"a b c d\n"] {
        for (path, _) in &files {
            fs::write(path, odd).unwrap();
        }
        let output = tree.tune(&["check"]);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{odd:?}: {}", stderr(&output));
        assert!(stderr(&output).is_empty(), "{odd:?}: {}", stderr(&output));
    }
}

#[test]
fn an_empty_root_has_no_failures_and_nothing_to_apply() {
    let dir = tempfile::tempdir().unwrap();
    let found = check_host(dir.path(), &Deployment::default());
    assert!(found.len() > 20);
    assert!(found.iter().all(|finding| !finding.applies), "{found:#?}");
}

#[test]
fn a_container_is_told_what_only_its_host_can_set() {
    let tree = Tree::unpack("container");
    let found = tree.find("io-uring", "");
    assert_eq!(found.verdict, Verdict::Unavailable);
    assert!(found.note.contains("/proc/sys is mounted read-only"), "{}", found.note);
    assert!(tree.check().iter().all(|finding| !finding.applies));
}

#[test]
fn a_link_that_leads_out_of_the_tree_is_not_written_through() {
    let tree = Tree::unpack("vm");
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("somaxconn");
    fs::write(&target, "128\n").unwrap();
    let link = tree.root().join("proc/sys/net/core/somaxconn");
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let output = tree.tune(&["apply", "somaxconn"]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("out of the tree"), "{}", stdout(&output));
    assert_eq!(fs::read_to_string(&target).unwrap(), "128\n");
    assert!(!tree.state().exists(), "nothing was changed, so nothing is to be remembered");
}

#[test]
fn bare_metal_gets_a_queue_a_rule_and_an_interrupt_per_shard() {
    let tree = Tree::unpack("bare_metal");
    assert!(tree.tune(&["apply", "--cores", "3,2,1,0", "--port", "9100"]).status.success());
    assert_eq!(tree.get("ethtool/ens1f0np0/rules"), "9100 0\n9101 1\n9102 2\n9103 3\n");
    assert_eq!(tree.get("ethtool/ens1f0np0/feature/rx-ntuple-filter"), "on\n");
    assert_eq!(tree.get("ethtool/ens1f0np0/ring/rx"), "4096\n");
    let affinity = |interrupt: u32| tree.get(&format!("proc/irq/{interrupt}/smp_affinity_list"));
    assert_eq!([64, 65, 66, 67, 68, 80].map(affinity), ["3\n", "2\n", "1\n", "0\n", "0-7\n", "0-7\n"]);
    assert_eq!(tree.get("sys/class/net/ens1f0np0/queues/tx-0/xps_cpus"), "00000000,00000008\n");
    assert_eq!(tree.get("sys/devices/system/cpu/cpu7/cpufreq/scaling_governor"), "performance\n");
    assert_eq!(tree.get("sys/devices/system/cpu/cpu3/power/pm_qos_resume_latency_us"), "20\n");
    assert_eq!(tree.get("sys/devices/system/cpu/cpu7/power/pm_qos_resume_latency_us"), "0\n");
    assert_eq!(tree.get("sys/kernel/mm/transparent_hugepage/enabled"), "always [madvise] never\n");
    assert_eq!(tree.get("systemd/irqbalance.service"), "inactive\n");
    assert!(tree.get("proc/self/mounts").contains("/var/lib/ringlane xfs rw,noatime,"));
    // The NIC steers, so software must not.
    assert_eq!(tree.get("sys/class/net/ens1f0np0/queues/rx-0/rps_cpus"), "00000000,00000000\n");
}

#[test]
fn shards_far_from_the_nic_are_a_finding_for_a_person() {
    let tree = Tree::unpack("bare_metal");
    let far = Deployment { cores: Some(vec![4, 5]), ..Deployment::default() };
    let found = check_host(tree.root(), &far);
    let nic = found.iter().find(|f| f.knob == "shard-placement" && f.item == "ens1f0np0").unwrap();
    assert_eq!((nic.verdict, nic.applies), (Verdict::Short, false));
    assert!(nic.note.contains("--cores 0-3"), "{}", nic.note);
}

#[test]
fn a_nic_that_cannot_steer_gets_rps_and_rfs_instead() {
    let tree = Tree::unpack("vm");
    assert_eq!(tree.find("flow-steering", "").verdict, Verdict::Info);
    assert!(tree.tune(&["apply"]).status.success());
    assert_eq!(tree.get("sys/class/net/eth0/queues/rx-0/rps_cpus"), "f\n");
    assert_eq!(tree.get("proc/sys/net/core/rps_sock_flow_entries"), "32768\n");
    assert_eq!(tree.get("sys/devices/system/clocksource/clocksource0/current_clocksource"), "tsc\n");
    assert_eq!(tree.get("ethtool/eth0/rules"), "");
}

#[test]
fn a_volume_is_followed_to_its_disk() {
    let tree = Tree::unpack("arm64");
    let found = tree.find("disk-read-ahead", "nvme1n1");
    assert_eq!((found.now.as_str(), found.verdict), ("8", Verdict::Short));
    assert_eq!(tree.find("cpu-model", "crc32c").now, "crc32 pmull");
}

#[test]
fn the_dev_profile_leaves_other_programs_alone() {
    let tree = Tree::unpack("bare_metal");
    let before = tree.snapshot();
    assert!(tree.tune(&["apply", "--dev"]).status.success());
    let after = tree.snapshot();
    let changed: Vec<_> =
        after.iter().filter(|(path, bytes)| before.get(*path) != Some(bytes)).map(|(p, _)| p).collect();
    let sysctl =
        |path: &&&PathBuf| path.starts_with(tree.root().join("proc/sys")) || path.starts_with(tree.root().join("var"));
    assert!(changed.len() > 2 && changed.iter().all(|path| sysctl(&path)), "{changed:#?}");
}

#[test]
fn findings_are_the_same_after_a_trip_through_json() {
    let tree = Tree::unpack("arm64");
    let found = tree.check();
    let text = stdout(&tree.tune(&["check", "--json"]));
    let read: Vec<Finding> = serde_json::from_str(&text).unwrap();
    assert_eq!(read, found);
}

/// The shipped file must say what the knobs say.
#[test]
fn the_sysctl_file_leaves_nothing_short_but_what_depends_on_the_host() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/90-ringlane.sysctl.conf");
    let text = fs::read_to_string(file).unwrap();
    let settings: Vec<_> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|l| l.split_once(" = ")).collect();
    assert!(settings.len() > 10);
    for name in ["bare_metal", "arm64"] {
        let tree = Tree::unpack(name);
        for (key, value) in &settings {
            tree.put(&format!("proc/sys/{}", key.replace('.', "/")), &format!("{value}\n"));
        }
        let left = stdout(&tree.tune(&["script", "--sysctl"]));
        let left: Vec<_> = left.lines().filter(|line| line.contains(" = ") && !line.starts_with('#')).collect();
        assert!(left.iter().all(|line| line.starts_with("vm.min_free_kbytes")), "{name}: {left:?}");
    }
}

#[test]
fn the_drop_in_names_the_cores() {
    let tree = Tree::unpack("bare_metal");
    let unit = stdout(&tree.tune(&["script", "--unit", "--cores", "0-3,6"]));
    assert!(unit.contains("[Service]\nCPUAffinity=0-3 6\n"), "{unit}");
}

/// As root the tuner runs as `nobody`, for whom modes mean something.
fn tune_as_nobody(tree: &Tree, arguments: &[&str]) -> Output {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let program = tree.root().join("ringlane-tune");
    // By a process of its own: a test that starts a program just now would inherit this one's file, open for writing, and a
    // file that is open for writing cannot be run.
    let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_ringlane-tune")).arg(&program).status().unwrap();
    assert!(copied.success());
    fs::set_permissions(tree.root(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(&program);
    command.arg("--root").arg(tree.root()).args(arguments);
    if nix::unistd::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    fs::remove_file(&program).unwrap();
    output
}

#[test]
fn without_permission_nothing_is_changed_and_nothing_is_an_error_but_what_cannot_be_done() {
    use std::os::unix::fs::PermissionsExt;
    let tree = Tree::unpack("vm");
    let mode =
        |path: &str, mode| fs::set_permissions(tree.root().join(path), fs::Permissions::from_mode(mode)).unwrap();

    mode("proc/sys/vm/swappiness", 0o000);
    let check = tune_as_nobody(&tree, &["check", "swappiness", "somaxconn"]);
    assert_eq!((check.status.code(), stderr(&check).as_str()), (Some(1), ""));
    assert!(stdout(&check).contains("may not be read; run as root"), "{}", stdout(&check));
    mode("proc/sys/vm/swappiness", 0o644);

    // No place for the state file: nothing may be changed.
    let before = tree.snapshot();
    fs::create_dir_all(tree.root().join("var")).unwrap();
    mode("var", 0o555);
    let apply = tune_as_nobody(&tree, &["apply"]);
    assert_eq!(apply.status.code(), Some(2));
    assert!(stderr(&apply).contains("run as root") && stderr(&apply).lines().count() == 1, "{}", stderr(&apply));
    fs::remove_dir(tree.root().join("var")).unwrap();
    assert!(tree.snapshot() == before);

    // A place for it, and settings that may not be written: said, and forgotten again.
    mode("proc/sys/net/core/somaxconn", 0o444);
    let state = tempfile::tempdir().unwrap();
    fs::set_permissions(state.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let file = state.path().join("state.json");
    let apply = tune_as_nobody(&tree, &["apply", "somaxconn", "--state", file.to_str().unwrap()]);
    assert!(apply.status.success(), "{}", stderr(&apply));
    assert!(stdout(&apply).contains("cannot be set here"), "{}", stdout(&apply));
    assert!(!file.exists() && tree.snapshot() == before);
}
