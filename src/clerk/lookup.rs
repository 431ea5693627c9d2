//! Many users by their ids.

use std::collections::{HashMap, HashSet, VecDeque};

use super::query::Query;
use super::users::check_id;
use super::{ApiError, Clerk, ClerkError, User, Users};

/// Most ids in one request.
pub const MAX_IDS: usize = 100;

/// Clerk's code for more values than it takes.
const TOO_MANY: &str = "form_param_array_size_exceeded";

/// What was found for an id.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The id that was asked for.
    pub id: String,
    /// What there is.
    pub outcome: Outcome,
}

/// What there is for an id.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The user.
    User(Box<User>),
    /// No such user.
    Missing,
    /// Clerk refuses the id with a 422.
    Refused(Box<ApiError>),
}

impl Found {
    /// The user, if there is one.
    #[must_use]
    pub fn user(&self) -> Option<&User> {
        if let Outcome::User(user) = &self.outcome { Some(user) } else { None }
    }

    /// Whether there is no such user.
    #[must_use]
    pub fn is_missing(&self) -> bool {
        self.outcome == Outcome::Missing
    }
}

/// Users that are asked for in one request after the other, made by [`Users::look_up`].
///
/// Each id is answered once. After an error, or when the future of [`LookUp::next`] was dropped, the next call asks for
/// what has no answer yet.
#[derive(Debug)]
pub struct LookUp {
    users: Users,
    left: VecDeque<String>,
    /// How many ids the next requests are to have, the next one last; together at most what is left.
    parts: Vec<usize>,
    largest: usize,
}

impl LookUp {
    pub(super) fn new<I: AsRef<str>>(users: Users, ids: impl IntoIterator<Item = I>) -> Result<Self, ClerkError> {
        let mut known = HashSet::new();
        let mut left = VecDeque::new();
        for id in ids {
            let id = id.as_ref();
            check_id(id)?;
            if known.insert(id.to_owned()) {
                left.push_back(id.to_owned());
            }
        }
        Ok(Self { users, left, parts: Vec::new(), largest: MAX_IDS })
    }

    /// How many ids have no answer yet.
    #[must_use]
    pub fn left(&self) -> usize {
        self.left.len()
    }

    /// The next ids, in order, with what was found; none at the end.
    ///
    /// A 422 halves the request until the ids that Clerk refuses stand alone.
    ///
    /// # Errors
    /// When a request fails other than by a 422.
    pub async fn next(&mut self) -> Result<Option<Vec<Found>>, ClerkError> {
        while !self.left.is_empty() {
            let most = self.largest.min(self.left.len());
            let count = self.parts.last().map_or(most, |part| *part.min(&most));
            match self.ask(count).await {
                Ok(users) => return Ok(Some(self.answer(count, users))),
                Err(ClerkError::Api(error)) if error.status.as_u16() == 422 && count == 1 => {
                    self.parts.pop();
                    let refused = |id| Found { id, outcome: Outcome::Refused(error) };
                    return Ok(self.left.pop_front().map(|id| vec![refused(id)]));
                }
                Err(error) if error.is_refused_parameter() && count > 1 => {
                    let half = count / 2;
                    if error.code() == Some(TOO_MANY) {
                        self.largest = half;
                    }
                    self.parts.pop();
                    self.parts.extend([count - half, half]);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn ask(&self, count: usize) -> Result<Vec<User>, ClerkError> {
        let mut query = Query::of("/v1/users");
        // Without a limit Clerk gives ten.
        query.push("limit", count);
        for id in self.left.iter().take(count) {
            query.push("user_id", id);
        }
        self.users.fetch(query.into_path()).await
    }

    fn answer(&mut self, count: usize, users: Vec<User>) -> Vec<Found> {
        self.parts.pop();
        let mut users: HashMap<String, User> = users.into_iter().map(|user| (user.id.clone(), user)).collect();
        let ids = self.left.drain(..count);
        ids.map(|id| {
            let user = users.remove(&id);
            Found { id, outcome: user.map_or(Outcome::Missing, |user| Outcome::User(Box::new(user))) }
        })
        .collect()
    }
}

/// All of the ids, in the order given.
pub(super) async fn in_given_order<I: AsRef<str>>(
    clerk: &Clerk,
    ids: impl IntoIterator<Item = I>,
) -> Result<Vec<Found>, ClerkError> {
    let ids: Vec<I> = ids.into_iter().collect();
    let mut look_up = clerk.users().look_up(ids.iter().map(AsRef::as_ref))?;
    let mut found = Vec::with_capacity(look_up.left());
    while let Some(more) = look_up.next().await? {
        found.extend(more);
    }
    if found.len() == ids.len() {
        return Ok(found);
    }
    let by_id: HashMap<&str, &Found> = found.iter().map(|found| (found.id.as_str(), found)).collect();
    Ok(ids.iter().filter_map(|id| by_id.get(id.as_ref())).map(|found| (*found).clone()).collect())
}
