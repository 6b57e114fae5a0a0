//! Plans: many upgrades at heights, in one file each.
//!
//! Architecture invariant: nothing here knows the supervisor. What is scheduled, applied or measured
//! comes in as plain data.

mod plan;
mod store;
mod validate;

pub use plan::{Entry, Plan};
pub use store::{Plans, Stored, read_file};
pub use validate::{Context, Finding, Report, Severity, validate, validate_json};

/// Every loop over the upgrades of a plan goes through here, so that a test can count how often one is
/// looked at.
fn visit<I: IntoIterator>(items: I) -> impl Iterator<Item = I::Item> {
    let items = items.into_iter();
    #[cfg(test)]
    let items = items.inspect(|_| tests::VISITS.with(|visits| visits.set(visits.get() + 1)));
    items
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    thread_local! {
        pub(super) static VISITS: Cell<u64> = const { Cell::new(0) };
    }
}
