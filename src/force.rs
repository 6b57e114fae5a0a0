//! Whether the operator overrules a refusal.

/// Whether an operation that would be refused is carried out on the operator's order (`--force`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It is refused.
    No,
    /// It is done.
    Yes,
}

impl Force {
    /// Whether the operator has overruled it.
    pub fn is_given(self) -> bool {
        self == Force::Yes
    }
}
