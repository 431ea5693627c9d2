//! Finds the users that match a query.

use std::cmp::Reverse;
use std::ops::Range as Span;

use super::query::{Filter, Order, TextField, UserQuery};
use super::view::View;
use crate::error::ApiError;

/// The users that match a filter, in the order of creation.
enum Matching {
    /// All users in a range of places, which takes constant memory.
    All(Span<usize>),
    Some(Vec<u32>),
}

/// Finds the user who has a name.
type Finder<'a> = &'a dyn Fn(&str) -> Option<u32>;

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
            let sorted = self.sorted(matching.numbers(self).collect(), query.order, query.descending);
            return Ok(sorted.into_iter().skip(query.offset as usize).take(limit).collect());
        }
        let skip = match &query.starting_after {
            Some(id) => {
                let cursor = self.find(id).filter(|user| matching.contains(self, *user)).ok_or_else(|| {
                    let message = "starting_after is not the id of a user in this list";
                    ApiError::parameter("form_param_value_invalid", "starting_after", message)
                })?;
                let place = matching.place_of(self, cursor);
                1 + if query.descending { matching.len() - 1 - place } else { place }
            }
            None => query.offset as usize,
        };
        let places = skip..skip.saturating_add(limit).min(matching.len());
        Ok(places
            .filter_map(|place| matching.get(self, if query.descending { matching.len() - 1 - place } else { place }))
            .collect())
    }

    fn matching(&self, filter: &Filter) -> Matching {
        if filter.matches_none {
            return Matching::Some(Vec::new());
        }
        let span = self.users.places_created(self.directory, filter.created_at.first, filter.created_at.last);
        let all = Matching::All(span);
        if filter.is_by_creation_only() {
            return all;
        }
        let unwanted = sorted_set(filter.user_ids.unwanted.iter().filter_map(|id| self.find(id)));
        let is_unwanted =
            |user: &u32| unwanted.binary_search(user).is_ok() || filter.members_of_unwanted.binary_search(user).is_ok();
        let passes = |user: &u32| !is_unwanted(user) && self.passes(*user, filter);
        Matching::Some(match self.named_by(filter) {
            Some(users) => users.into_iter().filter(|user| all.contains(self, *user) && passes(user)).collect(),
            None => all.numbers(self).filter(passes).collect(),
        })
    }

    /// Returns the users that match every kind of name in the filter; `None` if the filter has no names.
    fn named_by(&self, filter: &Filter) -> Option<Vec<u32>> {
        let finders: [(&[String], Finder<'_>); 5] = [
            (&filter.user_ids.wanted, &|id| self.find(id)),
            (&filter.emails, &|email| self.find_email(email)),
            (&filter.phones, &|number| self.find_phone(number)),
            (&filter.usernames, &|name| self.find_username(name)),
            (&filter.external_ids.wanted, &|id| self.find_external_id(id)),
        ];
        let sets = finders.into_iter().filter(|(wanted, _)| !wanted.is_empty());
        let sets = sets.map(|(wanted, find)| sorted_set(wanted.iter().filter_map(|name| find(name))));
        sets.chain(filter.members.clone()).reduce(|mut kept, other| {
            kept.retain(|user| other.binary_search(user).is_ok());
            kept
        })
    }

    /// Checks the part of a filter that needs the user's data.
    fn passes(&self, user: u32, filter: &Filter) -> bool {
        let unwanted = &filter.external_ids.unwanted;
        filter.last_active_at.contains_or_open(|| self.last_active_at(user))
            && filter.last_sign_in_at.contains_or_open(|| self.last_sign_in_at(user))
            && filter.banned.is_none_or(|banned| banned == self.is_banned(user))
            && (unwanted.is_empty() || self.external_id(user).is_none_or(|id| !unwanted.iter().any(|u| *u == id)))
            && filter.texts.iter().all(|(field, text)| self.has_text(user, *field, text))
    }

    fn has_text(&self, user: u32, field: TextField, text: &str) -> bool {
        let email = || self.email(user).is_some_and(|email| email.to_lowercase().contains(text));
        let username = || self.username(user).is_some_and(|name| name.to_lowercase().contains(text));
        let name = || {
            let parts = [self.first_name(user), self.last_name(user)];
            parts.into_iter().flatten().collect::<Vec<_>>().join(" ").to_lowercase().contains(text)
        };
        match field {
            TextField::Email => email(),
            TextField::Username => username(),
            TextField::Name => name(),
            TextField::Any => email() || username() || name() || self.id(user).to_lowercase().contains(text),
        }
    }

    /// Sorts by another field than the creation time. Users with equal or missing values stay in the order of
    /// creation.
    fn sorted(&self, mut users: Vec<u32>, order: Order, descending: bool) -> Vec<u32> {
        match order {
            Order::CreatedAt => by(&mut users, descending, |user| self.created_at(user)),
            Order::UpdatedAt => by(&mut users, descending, |user| self.updated_at(user)),
            Order::LastActiveAt => by(&mut users, descending, |user| self.last_active_at(user)),
            Order::LastSignInAt => by(&mut users, descending, |user| self.last_sign_in_at(user)),
            Order::Email => by(&mut users, descending, |user| self.email(user)),
            Order::Username => by(&mut users, descending, |user| self.username(user)),
            Order::FirstName => by(&mut users, descending, |user| self.first_name(user)),
            Order::LastName => by(&mut users, descending, |user| self.last_name(user)),
        }
        users
    }
}

impl Matching {
    fn len(&self) -> usize {
        match self {
            Self::All(span) => span.len(),
            Self::Some(users) => users.len(),
        }
    }

    fn get(&self, view: &View<'_>, place: usize) -> Option<u32> {
        match self {
            Self::All(span) => {
                let place = span.start.checked_add(place).filter(|place| span.contains(place))?;
                view.users.at(view.directory, place)
            }
            Self::Some(users) => users.get(place).copied(),
        }
    }

    /// Returns the number of matching users that were created before this one.
    fn place_of(&self, view: &View<'_>, user: u32) -> usize {
        match self {
            Self::All(span) => view.users.place_of(view.directory, user).saturating_sub(span.start),
            Self::Some(users) => users.partition_point(|other| *other < user),
        }
    }

    fn contains(&self, view: &View<'_>, user: u32) -> bool {
        self.get(view, self.place_of(view, user)) == Some(user)
    }

    fn numbers(&self, view: &View<'_>) -> impl Iterator<Item = u32> {
        (0..self.len()).filter_map(move |place| self.get(view, place))
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
