//! Finds the users that match a query.

use std::cmp::Reverse;
use std::ops::Range as Span;

use super::json::View;
use super::query::{Filter, Order, TextField, UserQuery};
use crate::error::ApiError;

/// The users that match a filter, in the order of creation.
enum Matching {
    /// All users in a range of numbers, which takes constant memory.
    All(Span<u32>),
    Some(Vec<u32>),
}

impl Matching {
    fn len(&self) -> usize {
        match self {
            Self::All(span) => span.len(),
            Self::Some(users) => users.len(),
        }
    }

    fn get(&self, place: usize) -> Option<u32> {
        match self {
            Self::All(span) => span.clone().nth(place),
            Self::Some(users) => users.get(place).copied(),
        }
    }

    /// Returns the number of matching users that were created before this one.
    fn place_of(&self, user: u32) -> usize {
        match self {
            Self::All(span) => (span.start..span.end.min(user)).len(),
            Self::Some(users) => users.partition_point(|other| *other < user),
        }
    }

    fn contains(&self, user: u32) -> bool {
        self.get(self.place_of(user)) == Some(user)
    }

    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::All(span) => span.collect(),
            Self::Some(users) => users,
        }
    }
}

impl View<'_> {
    /// Returns the number of users that match the query's filter.
    pub(crate) fn count(&self, query: &UserQuery) -> usize {
        self.matching(&query.filter).len()
    }

    /// Returns the page of users that the query selects, as a JSON array.
    ///
    /// # Errors
    ///
    /// 422 if the cursor is not a user of the list.
    pub(crate) fn page(&self, query: &UserQuery) -> Result<Vec<u8>, ApiError> {
        let users = self.page_numbers(query)?;
        let mut json = Vec::with_capacity(2 + users.len() * 1_700);
        json.push(b'[');
        for (place, user) in users.into_iter().enumerate() {
            if place > 0 {
                json.push(b',');
            }
            self.write(user, &mut json);
        }
        json.push(b']');
        Ok(json)
    }

    fn page_numbers(&self, query: &UserQuery) -> Result<Vec<u32>, ApiError> {
        let matching = self.matching(&query.filter);
        let limit = query.limit as usize;
        if query.order != Order::CreatedAt {
            let sorted = self.sorted(matching.into_vec(), query.order, query.descending);
            return Ok(sorted.into_iter().skip(query.offset as usize).take(limit).collect());
        }
        let skip = match &query.starting_after {
            Some(id) => {
                let cursor = self.directory.find(id).filter(|user| matching.contains(*user)).ok_or_else(|| {
                    let message = "starting_after is not the id of a user in this list";
                    ApiError::parameter("form_param_value_invalid", "starting_after", message)
                })?;
                let place = matching.place_of(cursor);
                1 + if query.descending { matching.len() - 1 - place } else { place }
            }
            None => query.offset as usize,
        };
        let places = skip..skip.saturating_add(limit).min(matching.len());
        Ok(places
            .filter_map(|place| matching.get(if query.descending { matching.len() - 1 - place } else { place }))
            .collect())
    }

    fn matching(&self, filter: &Filter) -> Matching {
        if filter.matches_none {
            return Matching::Some(Vec::new());
        }
        let created = filter.created_at;
        let first = self.directory.created_partition(|at| at < created.first);
        let span = first..self.directory.created_partition(|at| at <= created.last).max(first);
        if filter.is_by_creation_only() {
            return Matching::All(span);
        }
        let find_all = |ids: &[String]| sorted_set(ids.iter().filter_map(|id| self.directory.find(id)));
        let unwanted = find_all(&filter.user_ids.unwanted);
        let passes =
            |user: &u32| span.contains(user) && unwanted.binary_search(user).is_err() && self.passes(*user, filter);
        Matching::Some(match self.named(filter, find_all) {
            Some(users) => users.into_iter().filter(passes).collect(),
            None => span.clone().filter(passes).collect(),
        })
    }

    /// Returns the users that match every kind of name in the filter; `None` if the filter has no names.
    fn named(&self, filter: &Filter, find_all: impl Fn(&[String]) -> Vec<u32>) -> Option<Vec<u32>> {
        let mut sets = Vec::new();
        if !filter.user_ids.wanted.is_empty() {
            sets.push(find_all(&filter.user_ids.wanted));
        }
        if !filter.emails.is_empty() {
            sets.push(sorted_set(filter.emails.iter().filter_map(|email| self.directory.find_email(email))));
        }
        // These two can change: users who have the name now, and those who had it at creation and still do.
        if !filter.usernames.is_empty() {
            let has = |user: &u32| self.username(*user).is_some_and(|name| filter.usernames.iter().any(|n| *n == name));
            let born = filter.usernames.iter().filter_map(|name| self.directory.find_username(name));
            sets.push(sorted_set(born.chain(self.edited_users()).filter(has)));
        }
        if !filter.external_ids.wanted.is_empty() {
            let wanted = &filter.external_ids.wanted;
            let has = |user: &u32| self.external_id(*user).is_some_and(|id| wanted.iter().any(|w| *w == id));
            let born = wanted.iter().filter_map(|id| self.directory.find_external_id(id));
            sets.push(sorted_set(born.chain(self.edited_users()).filter(has)));
        }
        sets.into_iter().reduce(|mut kept, other| {
            kept.retain(|user| other.binary_search(user).is_ok());
            kept
        })
    }

    fn edited_users(&self) -> impl Iterator<Item = u32> {
        self.edits.of_instance(self.instance).map(|(user, _)| user)
    }

    /// Checks the part of a filter that needs the user's data.
    fn passes(&self, user: u32, filter: &Filter) -> bool {
        let directory = self.directory;
        let unwanted = &filter.external_ids.unwanted;
        filter.last_active_at.contains_or_open(|| directory.last_active_at(user))
            && filter.last_sign_in_at.contains_or_open(|| directory.last_sign_in_at(user))
            && filter.banned.is_none_or(|banned| banned == directory.is_banned(user))
            && (unwanted.is_empty() || self.external_id(user).is_none_or(|id| !unwanted.iter().any(|u| *u == id)))
            && filter.texts.iter().all(|(field, text)| self.has_text(user, *field, text))
    }

    fn has_text(&self, user: u32, field: TextField, text: &str) -> bool {
        let email = || self.directory.email(user).contains(text);
        let username = || self.username(user).is_some_and(|name| name.to_lowercase().contains(text));
        let name = || {
            let parts = [self.first_name(user), self.last_name(user)];
            parts.into_iter().flatten().collect::<Vec<_>>().join(" ").to_lowercase().contains(text)
        };
        match field {
            TextField::Email => email(),
            TextField::Username => username(),
            TextField::Name => name(),
            TextField::Any => email() || username() || name() || self.directory.id(user).to_lowercase().contains(text),
        }
    }

    /// Sorts by another field than the creation time. Users with equal or missing values stay in the order of
    /// creation.
    fn sorted(&self, mut users: Vec<u32>, order: Order, descending: bool) -> Vec<u32> {
        let directory = self.directory;
        match order {
            Order::CreatedAt => by(&mut users, descending, |user| directory.created_at(user)),
            Order::UpdatedAt => by(&mut users, descending, |user| self.updated_at(user)),
            Order::LastActiveAt => by(&mut users, descending, |user| directory.last_active_at(user)),
            Order::LastSignInAt => by(&mut users, descending, |user| directory.last_sign_in_at(user)),
            Order::Email => by(&mut users, descending, |user| directory.email(user)),
            Order::Username => by(&mut users, descending, |user| self.username(user)),
            Order::FirstName => by(&mut users, descending, |user| self.first_name(user)),
            Order::LastName => by(&mut users, descending, |user| self.last_name(user)),
        }
        users
    }
}

fn by<K: Ord>(users: &mut [u32], descending: bool, key: impl Fn(u32) -> K) {
    if descending {
        users.sort_by_cached_key(|user| Reverse(key(*user)));
    } else {
        users.sort_by_cached_key(|user| key(*user));
    }
}

fn sorted_set(users: impl Iterator<Item = u32>) -> Vec<u32> {
    let mut users: Vec<u32> = users.collect();
    users.sort_unstable();
    users.dedup();
    users
}
