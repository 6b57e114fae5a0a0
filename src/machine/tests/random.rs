//! By dice: whatever happens in whatever order, even events that do not keep the loop's contract.

use super::world::told;
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

/// As all sources of plans agree: by height, no name and no height twice.
fn any_schedule() -> impl Strategy<Value = Vec<Arc<Upgrade>>> {
    let all = prop::collection::vec(any_upgrade().prop_map(Arc::new), 0..4);
    all.prop_map(|all| merge(all, &[], &[]).upgrades)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

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
fn events_of(number: u64, plans: &[Vec<Arc<Upgrade>>], record: &Record) -> Vec<Event> {
    let failure = || Failure::new(Class::Transient, "it failed");
    let ask = |what| Event::Request(Ask { reply_to: Some(number), what });
    let rehearsal = match number % 3 {
        0 => Rehearsal::None,
        1 => Rehearsal::Passed,
        _ => Rehearsal::Failed("it failed".to_owned()),
    };
    let ready = Ready {
        hook: number.is_multiple_of(2),
        insisted: number.is_multiple_of(3),
        rehearsal: rehearsal.clone(),
        ..Ready::new(version(&Target::Upgrade(name("v2"))))
    };
    vec![
        Event::Boot(Facts {
            record: record.clone(),
            link: version(&Target::Genesis),
            head: None,
            has_data: number.is_multiple_of(5),
            launched: None,
        }),
        Event::Recorded,
        Event::Recorded,
        Event::RecordFailed(failure()),
        Event::PostHookEnded,
        Event::Linked,
        Event::LinkFailed { failure: failure(), leads_to: None },
        Event::LinkFailed { failure: failure(), leads_to: Some(Target::Genesis) },
        Event::Inspected,
        Event::InspectFailed(failure()),
        Event::Spawned { pid: 1 },
        Event::Spawned { pid: 1 },
        Event::SpawnFailed(failure()),
        Event::Released,
        Event::Terminated,
        Event::NotTerminated(failure()),
        Event::Exited(Ending { status: Status::Code(0), environment: None, last_words: None }),
        Event::JobDone(JobEnd::Prepared(name("v2"), Ok(ready))),
        Event::JobDone(JobEnd::BackedUp(Ok("v2-1".into()))),
        Event::JobDone(JobEnd::Hooked(HookEnd::Continue)),
        Event::JobDone(JobEnd::Restored(Err(failure()))),
        Event::JobDone(JobEnd::Rehearsed(name("v2"), Ok(rehearsal))),
        Event::JobDone(JobEnd::Rehearsed(name("v2"), Err(failure()))),
        Event::Head(Head { timestamp: Some(number), heard_at: number / 2, ..told(number) }),
        Event::Head(told(number % 200)),
        Event::Traced(Ok((number % 200..number % 200 + 3).map(told).collect())),
        Event::Traced(Err(failure())),
        Event::Identified(Ok(Chain { id: number % 2, genesis: "0x00".to_owned() })),
        Event::Recalled(Ok(Recollection {
            block: super::world::block(number % 200),
            client_version: None,
            forks: None,
        })),
        Event::SealingStarted(Ok(())),
        Event::SealingStopped(Err(failure())),
        Event::Unpeered(Ok(2)),
        Event::Greeted(Ok(None)),
        ask(Request::Sign(None)),
        ask(Request::Sign(Some(super::world::block(number % 200)))),
        ask(Request::ResetHead),
        Event::Schedule(plans[0].clone()),
        Event::Policy(super::policy()),
        ask(Request::Stop),
        ask(Request::Restart),
        ask(Request::UpgradeNow(name("v2"))),
        ask(Request::Cancel(name("v2"))),
        ask(Request::Rollback(Back {
            to: version(&Target::Genesis),
            backup: number.is_multiple_of(2).then(|| "v2-1".to_owned()),
            force: number.is_multiple_of(3),
        })),
        ask(Request::CancelRollback),
        ask(Request::Refresh(name("v2"))),
        ask(Request::Dump),
        Event::Tick,
    ]
}
