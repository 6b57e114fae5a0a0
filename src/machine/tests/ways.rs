//! The way back that the operator orders: each row of DESIGN section 6, in each phase of an upgrade, with and without a
//! supervisor.

use super::transcript::{CLEAN, Story, after};
use super::world::{Input, World};
use super::*;
use expect_test::expect;

/// A point in the life of an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum At {
    /// The old node is being stopped.
    Stopping,
    /// It is down, and its data is being saved.
    Stopped,
    /// The pre-upgrade hook runs.
    BackedUp,
    /// The new binary runs.
    Probation,
    /// It has ended, and is started again in a moment.
    Failing,
    /// It has proved itself.
    Applied,
}

const ALL: [At; 6] = [At::Stopping, At::Stopped, At::BackedUp, At::Probation, At::Failing, At::Applied];

/// A row of the table.
struct Row {
    name: &'static str,
    fork_height: Option<u64>,
    data_compat: bool,
    backup: bool,
    /// How the old node ends.
    end: Status,
    /// The head that the new binary reaches.
    top: u64,
    restore: bool,
    force: bool,
    /// The expectations before the new binary has run, and after it has.
    expected: [Expected; 2],
}

/// The outcome of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    /// The old binary runs, on the data as it is.
    Old,
    /// It runs on the data of the backup.
    Restored,
    /// It is refused, for this.
    Refused(&'static str),
    /// The situation does not come about.
    Never,
}

use Expected::{Never, Old, Refused, Restored};

const FINE: Row = Row {
    name: "head below the fork",
    fork_height: Some(500),
    data_compat: true,
    backup: true,
    end: Status::Code(0),
    top: H + 3,
    restore: false,
    force: false,
    expected: [Old, Old],
};
const FORKED: Row =
    Row { name: "head past the fork", fork_height: Some(H + 2), expected: [Never, Refused("fork")], ..FINE };
const UNCLEAN: Row = Row {
    name: "the old node was killed",
    end: Status::Signal(9),
    backup: false,
    expected: [Old, Refused("uncleanly")],
    ..FINE
};
const UNSAVED: Row = Row {
    name: "other data and no backup",
    data_compat: false,
    backup: false,
    expected: [Old, Refused("no backup")],
    ..FINE
};

const ROWS: [Row; 11] = [
    FINE,
    Row { name: "no fork", fork_height: None, ..FINE },
    FORKED,
    Row { name: "the same, forced", force: true, expected: [Never, Old], ..FORKED },
    UNCLEAN,
    Row { name: "the same, forced", force: true, expected: [Old, Old], ..UNCLEAN },
    UNSAVED,
    Row { name: "the same, forced", force: true, expected: [Old, Old], ..UNSAVED },
    Row { name: "other data", data_compat: false, expected: [Old, Restored], ..FINE },
    Row { name: "the backup is wanted", restore: true, expected: [Refused("no backup"), Restored], ..FINE },
    Row {
        name: "a backup is wanted that is not there",
        restore: true,
        backup: false,
        expected: [Refused("no backup"); 2],
        ..FINE
    },
];

fn genesis() -> Version {
    version(&Target::Genesis)
}

impl Row {
    /// The expectation at a point: the health of an applied binary proves the data that the old node has left.
    fn expects(&self, at: At) -> Expected {
        let [before, after] = self.expected;
        match at {
            At::Stopping | At::Stopped | At::BackedUp => before,
            At::Applied if after == Refused("uncleanly") => Old,
            At::Probation | At::Failing | At::Applied => after,
        }
    }

    /// The upgrade at a point of its life, with a supervisor.
    fn at(&self, at: At) -> Story {
        let policy = Policy { backup: self.backup, ..policy() };
        let upgrade = Upgrade { fork_height: self.fork_height, data_compat: self.data_compat, ..v2() };
        let mut story = Story::running(policy, vec![upgrade]);
        story.world.hook = true;
        // Its preparation shall see the hook.
        story.then(Input::Ask(Request::Refresh(name("v2")))).blocks(H, H);
        if at >= At::Stopped {
            story.then(Input::Exit(self.end));
        }
        let saves = matches!(story.world.job, Some((Job::Backup(_), _)));
        if at >= At::BackedUp && saves {
            story.then(Input::Done);
        }
        if at >= At::Probation {
            story.then(Input::Done).blocks(H + 1, self.top);
        }
        match at {
            At::Failing => drop(story.then(Input::Exit(Status::Code(1)))),
            At::Applied => story.world.settle(H + 40, |_, _| {}).unwrap(),
            At::Stopping | At::Stopped | At::BackedUp | At::Probation => {}
        }
        story
    }

    /// The order as the command makes it, or why it does not.
    fn order(&self, world: &World) -> Result<Back, String> {
        let wanted = Wanted { to: None, restore: self.restore, force: self.force };
        let way = way_back(&world.record, &wanted, &self.known(world));
        way.map(|way| way.order).map_err(|refused| refused.why)
    }

    fn known(&self, world: &World) -> Known {
        let backups = if self.backup { vec!["v2-1".to_owned()] } else { Vec::new() };
        Known { highest: Some(world.head), backups, validator: false }
    }

    /// An order that a command makes which knows less.
    fn careless(&self) -> Back {
        let backup = self.restore.then(|| "v2-1".to_owned()).filter(|_| self.backup);
        Back { to: genesis(), backup, force: self.force }
    }
}

/// Lets everything go well until a node runs; returns whether the data was restored, and what became of the upgrade.
fn come_to_rest(world: &mut World, what: &str) -> (bool, Outcome) {
    let mut restored = false;
    world
        .settle(0, |world, _| restored |= matches!(world.job, Some((Job::Restore(_), _))))
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(world.outcome_in_a_word(), "genesis runs", "{what}");
    assert_eq!((&world.record.back, &world.record.upgrade), (&None, &None), "{what}");
    let ended = world.record.ended(&name("v2")).unwrap_or_else(|| panic!("{what}: v2 has ended"));
    (restored, ended.outcome)
}

#[test]
fn every_row_at_every_point_with_a_supervisor_and_without() {
    for row in &ROWS {
        for at in ALL.into_iter().filter(|at| row.expects(*at) != Never) {
            let what = format!("{} {at:?}", row.name);
            let story = row.at(at);
            let order = row.order(&story.world);
            let expected = row.expects(at);
            if let Refused(why) = expected {
                assert!(order.as_ref().is_err_and(|refused| refused.contains(why)), "{what}: {order:?}");
                with_a_supervisor_it_is_refused(story, row.careless(), why, &what);
                continue;
            }
            let order = order.unwrap_or_else(|e| panic!("{what}: {e}"));
            let ran = at >= At::Probation;
            let outcome = if ran { Outcome::RolledBack } else { Outcome::Failed };
            let expected = (expected == Restored, outcome);
            assert_eq!(without_a_supervisor(row, &story.world, &order, &what), expected, "{what}, without");
            assert_eq!(with_a_supervisor(story, order, &what), expected, "{what}, with");
        }
    }
}

fn with_a_supervisor_it_is_refused(mut story: Story, order: Back, why: &str, what: &str) {
    if order.backup.is_none() && why == "no backup" && story.world.record.upgrade.is_none() {
        return;
    }
    // The command has found that there is no such backup.
    if why == "no backup" && story.world.record.upgrade.as_ref().is_some_and(|a| a.data_compat) {
        return;
    }
    let before = story.world.record.clone();
    story.only(Input::Ask(Request::Rollback(order)));
    let told = story.take();
    assert!(told.contains("refuse: ") && told.contains(why), "{what}: {told}");
    assert_eq!(story.world.record, before, "{what}");
}

fn with_a_supervisor(mut story: Story, order: Back, what: &str) -> (bool, Outcome) {
    story.only(Input::Ask(Request::Rollback(order)));
    assert!(story.told().contains("answer: going back to genesis"), "{what}: {}", story.told());
    come_to_rest(&mut story.world, what)
}

fn without_a_supervisor(row: &Row, world: &World, order: &Back, what: &str) -> (bool, Outcome) {
    let mut world = world.clone();
    world.truth.ordered(order);
    (world.machine, world.process, world.awaiting, world.job, world.pending) =
        (None, None, false, None, None);
    let decision = Decision::Rollback { order: order.clone(), known: row.known(&world) };
    let record = Record { halted: Some("it failed".to_owned()), ..world.record.clone() };
    let resolved = resolve(record, Some(world.head), decision).unwrap_or_else(|e| panic!("{what}: {e:?}"));
    let [Action::Record(record)] = resolved.actions.as_slice() else { panic!("{what}: {resolved:?}") };
    world.record = record.clone();
    come_to_rest(&mut world, what)
}

#[test]
fn the_same_file_under_another_name_is_the_same_binary() {
    let mut story = FINE.at(At::Applied);
    let copy = Version { target: Target::Upgrade(name("v3")), ..version(&Target::Upgrade(name("v2"))) };
    for (force, to) in [(false, copy.clone()), (true, copy)] {
        story.only(Input::Ask(Request::Rollback(Back { to, backup: None, force })));
        assert!(story.take().contains("the same binary as upgrades/v2"));
    }
    // And the copy of an earlier one is an earlier one.
    let copy = Version { target: Target::Upgrade(name("v1")), ..genesis() };
    let wanted = Wanted { to: Some(copy.clone()), restore: false, force: false };
    let known = FINE.known(&story.world);
    let way = way_back(&story.world.record, &wanted, &known).unwrap();
    assert_eq!((way.order.to, way.undoes), (copy, vec![name("v2")]));
    let unknown = Wanted { to: Some(version(&Target::Upgrade(name("v9")))), ..wanted };
    let refused = way_back(&story.world.record, &unknown, &known).unwrap_err();
    assert!(refused.why.contains("has not run here"), "{refused:?}");
}

#[test]
fn a_way_over_two_upgrades_minds_both_forks_and_the_older_backup() {
    let mut story = Row { fork_height: None, ..FINE }.at(At::Applied);
    let (v2, v3) = (version(&Target::Upgrade(name("v2"))), version(&Target::Upgrade(name("v3"))));
    let record = &mut story.world.record;
    record.upgrade = Some(Attempt {
        name: name("v3"),
        from: v2.clone(),
        to: v3.clone(),
        attempt: 1,
        phase: Phase::Trying,
        fork_height: Some(300),
        data_compat: false,
        backup: Some("v3-1".to_owned()),
        ..Attempt::example()
    });
    let go = |to: &Version, highest, backups: &[&str]| {
        let known = Known {
            highest: Some(highest),
            backups: backups.iter().map(ToString::to_string).collect(),
            validator: true,
        };
        way_back(record, &Wanted { to: Some(to.clone()), restore: false, force: false }, &known)
    };
    let both = ["v2-1", "v3-1"];
    let way = go(&genesis(), 298, &both).unwrap();
    assert_eq!((way.undoes.len(), way.order.backup.as_deref()), (2, Some("v2-1")));
    assert!(way.doubts.iter().any(|d| d.contains("at 300, 2 blocks from here")), "{:?}", way.doubts);
    assert_eq!(go(&v2, 298, &both).unwrap().order.backup.as_deref(), Some("v3-1"));
    for refused in [go(&genesis(), 299, &both), go(&v2, 300, &both), go(&genesis(), 298, &["v3-1"])] {
        refused.unwrap_err();
    }
    assert!(go(&v3, 298, &both).unwrap_err().why.contains("same binary"));
}

#[test]
fn what_was_gone_back_from_is_tried_again_as_it_was_planned() {
    let row = Row { data_compat: false, ..FINE };
    let mut story = row.at(At::Applied);
    // Read again while it was applied, the plans are without it.
    story.then(Input::Plan(Vec::new())).forget();
    let order = row.order(&story.world).unwrap();
    story.then(Input::Ask(Request::Rollback(order))).then(CLEAN);
    assert!(story.take().contains("read plans"), "it is planned again");
    come_to_rest(&mut story.world, "back");
    story.then(Input::Ask(Request::UpgradeNow(name("v2")))).then(CLEAN);
    let attempt = story.world.record.upgrade.as_ref().expect("v2 is under way");
    assert_eq!((attempt.height, attempt.fork_height, attempt.data_compat), (H, Some(500), false));
}

#[test]
fn an_order_outlives_the_supervisor_and_comes_before_what_is_planned() {
    let mut story = Row { fork_height: None, ..FINE }.at(At::Probation);
    story.forget();
    story.then(Input::Ask(Request::Rollback(Back { to: genesis(), backup: None, force: false })));
    story.then(Input::Die { effect: false, node: super::world::Fate::Lingers }).then(Input::Boot);
    story.then(CLEAN).check(&expect![[r#"
        (+3.0s) ask rollback to genesis → record [genesis Running | v2 Trying attempt=1 asked backup=v2-1 | back to genesis]
                                     → answer: going back to genesis
        recorded                     → SIGTERM
        boot                         → info adopted (history): pid=1 version=upgrades/v2 age=3s
                                     → adopt
                                     → SIGTERM
        exited, exit code 0          → info node_stopped: status="an end that was not seen" after=0ns
                                     → await release
        release                      → record [genesis StoppedClean | v2 Reverting attempt=1 asked backup=v2-1]
                                     → read plans
        recorded                     → warn going_back (history): name=v2 to=genesis the operator's order
                                     → link genesis
        linked                       → record [genesis StoppedClean | v2 rolled-back]
        recorded                     → error upgrade_ended (history): name=v2 outcome=rolled-back the operator went back to genesis
                                     → await release
        release                      → record [genesis Running | v2 rolled-back]
        recorded                     → spawn genesis
        spawned                      → info node_started: pid=1 version=genesis
    "#]]);
    story.then(after(60)).blocks(H + 4, H + 9).check(&expect![[r#""#]]);
}

#[test]
fn while_the_journal_cannot_be_written_the_order_waits_and_the_node_runs() {
    let mut story = Row { fork_height: None, ..FINE }.at(At::Probation);
    story.only(Input::Ask(Request::Rollback(Back { to: genesis(), backup: None, force: false })));
    story.only(Input::Fail(Class::Environment)).forget();
    story.then(after(1)).check(&expect![[r#"
        (+50.0ms) pass               → record [genesis Running | v2 Trying attempt=1 asked backup=v2-1 | back to genesis]
        recorded                     → info journal_written: the record is durable again, after 1 failures
                                     → SIGTERM
    "#]]);
}
