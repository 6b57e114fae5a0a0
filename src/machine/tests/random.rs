//! Long walks by dice: through worlds that keep the loop's contract, and through events that do not.

use super::explore::{Cost, possible};
use super::world::{Input, World};
use super::*;
use proptest::prelude::*;
use proptest::sample::Index;

fn any_policy() -> impl Strategy<Value = Policy> {
    let seconds = || (0u64..200).prop_map(Duration::from_secs);
    let flags = (any::<[bool; 6]>(), 0usize..3);
    let counts = (0u32..4, 0u64..4, 0u32..3);
    (flags, counts, seconds(), seconds(), seconds(), seconds()).prop_map(
        |((flags, stop), (max_restarts, probation_blocks, hook_retries), a, b, c, d)| Policy {
            restart_after_upgrade: flags[0],
            restart_delay: if flags[1] { Duration::ZERO } else { a },
            restart_on_failure: flags[2],
            max_restarts,
            poll_interval: b / 10,
            watch_height: flags[3],
            shutdown_grace: c,
            stop_timeout: [StopTimeout::Wait, StopTimeout::Abort, StopTimeout::Kill][stop],
            start_timeout: d,
            probation_blocks,
            probation_time: b,
            backup: flags[4],
            hook_retries,
            validator: flags[5],
            ..policy()
        },
    )
}

fn any_upgrade() -> impl Strategy<Value = Upgrade> {
    let origin = prop_oneof![Just(Origin::Schedule), Just(Origin::TriggerFile)];
    (2u8..5, 100u64..106, prop::option::of(1u64..8), any::<bool>(), origin).prop_map(
        |(number, height, fork, data_compat, origin)| Upgrade {
            fork_height: fork.map(|blocks| height + blocks),
            data_compat,
            origin,
            ..upgrade(&format!("v{number}"), height)
        },
    )
}

/// As everybody who plans has agreed on: by height, no name and no height twice.
fn any_schedule() -> impl Strategy<Value = Vec<Upgrade>> {
    prop::collection::vec(any_upgrade(), 0..4).prop_map(|all| merge(all, &[], &[]).upgrades)
}

const HEADS: [u64; 10] = [99, 100, 101, 102, 103, 104, 105, 106, 108, 112];

/// A walk: what can happen next, of which `dice` choose one, or what always can.
fn walk(world: &mut World, dice: &[(Index, u8)], plans: &[Vec<Upgrade>], policies: &[Policy]) {
    let validator = world.policy.validator;
    let mut path = Vec::new();
    for (index, kind) in dice {
        let lives = world.machine.is_some() && world.pending.is_none();
        let input = match kind {
            0 if lives => Input::Plan(index.get(plans).clone()),
            1 if lives => Input::Configure(Policy { validator, ..index.get(policies).clone() }),
            2 if lives && world.process.as_ref().is_some_and(|p| !p.orphan && !p.terminated) => {
                Input::Head(*index.get(&HEADS))
            }
            _ => {
                let all = possible(world, &HEADS, |_| true);
                let calm: Vec<_> = all.iter().filter(|(_, cost)| *kind < 24 || *cost == Cost::Free).collect();
                if calm.is_empty() { index.get(&all).0.clone() } else { index.get(&calm).0.clone() }
            }
        };
        path.push(input.clone());
        if let Err(law) = world.step(&input) {
            panic!("broken law: {law}\nafter {path:#?}");
        }
        if let Some(machine) = &world.machine {
            let view = machine.view();
            let text = serde_json::to_string(&view).unwrap();
            assert_eq!(serde_json::from_str::<View>(&text).unwrap(), view);
            assert!(machine.pace() <= world.policy.poll_interval.max(Duration::from_millis(20)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_laws_hold_on_long_walks(
        policies in prop::collection::vec(any_policy(), 1..4),
        plans in prop::collection::vec(any_schedule(), 1..4),
        hook in any::<bool>(),
        dice in prop::collection::vec((any::<Index>(), 0u8..40), 1..300),
    ) {
        let mut world = World::new(policies[0].clone(), plans[0].clone());
        world.hook = hook;
        walk(&mut world, &dice, &plans, &policies);
    }

    #[test]
    fn no_event_at_any_time_makes_it_panic(
        policy in any_policy(),
        plans in prop::collection::vec(any_schedule(), 1..3),
        events in prop::collection::vec((any::<Index>(), any::<u64>(), 0u64..100), 1..200),
    ) {
        let mut now = Instant::now();
        let record = Record::new(version(&Target::Genesis));
        let mut machine = Machine::new(policy, 7, record.clone());
        for (index, number, seconds) in events {
            now += Duration::from_secs(seconds);
            let event = index.get(&events_of(number, &plans, &record)).clone();
            machine.step(now, event);
            if let Some((at, _)) = machine.deadline() {
                prop_assert!(at > now, "a deadline is in the future");
            }
            serde_json::to_string(&machine.view()).unwrap();
            prop_assert!(!machine.pace().is_zero() || machine.policy.poll_interval.is_zero());
        }
    }

    #[test]
    fn a_backoff_is_never_much_shorter_than_a_second_or_longer_than_a_minute(
        failures in any::<u32>(),
        dice in any::<u64>(),
    ) {
        let wait = backoff(failures, dice);
        prop_assert!(wait >= Duration::from_millis(800) && wait <= Duration::from_secs(72));
    }
}

/// One event of each kind, with numbers as large as a hostile node can make them.
fn events_of(number: u64, plans: &[Vec<Upgrade>], record: &Record) -> Vec<Event> {
    let failure = || Failure::new(Class::Transient, "it failed");
    let block = Block { height: number, hash: None };
    let ask = |what| Event::Request(Ask { reply_to: Some(number), what });
    let ready = Ready { version: version(&Target::Upgrade(name("v2"))), hook: number % 2 == 0 };
    vec![
        Event::Boot(Facts { record: record.clone(), link: version(&Target::Genesis) }),
        Event::Recorded,
        Event::Recorded,
        Event::RecordFailed(failure()),
        Event::Linked,
        Event::LinkFailed(failure()),
        Event::Inspected,
        Event::InspectFailed(failure()),
        Event::Spawned { pid: 1 },
        Event::Spawned { pid: 1 },
        Event::SpawnFailed(failure()),
        Event::Released,
        Event::Exited(Ending { status: Status::Code(0), environment: None }),
        Event::JobDone(JobEnd::Prepared(name("v2"), Ok(ready))),
        Event::JobDone(JobEnd::BackedUp(Ok("v2-1".to_owned()))),
        Event::JobDone(JobEnd::Hooked(HookEnd::Continue)),
        Event::JobDone(JobEnd::Restored(Err(failure()))),
        Event::Head(Head { block: block.clone(), timestamp: Some(number) }),
        Event::Head(Head { block: Block { height: number % 200, hash: None }, timestamp: None }),
        Event::Schedule(plans[0].clone()),
        Event::Policy(super::policy()),
        ask(Request::Stop),
        ask(Request::Restart),
        ask(Request::UpgradeNow(name("v2"))),
        ask(Request::Cancel(name("v2"))),
        ask(Request::Refresh(name("v2"))),
        ask(Request::Dump),
        Event::Tick,
    ]
}
