//! The operator's word `--force`.

/// Whether what is refused otherwise is to be done on the operator's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Force {
    /// It is refused.
    No,
    /// It is done.
    Yes,
}

impl Force {
    /// Whether the word was given.
    #[must_use]
    pub fn is_given(self) -> bool {
        self == Force::Yes
    }
}
