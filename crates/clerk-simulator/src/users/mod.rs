//! Users, generated from a seed and a number on demand, so that any number of them takes no memory.

pub(super) mod create;
mod edit;
pub(super) mod json;
pub(super) mod listing;
pub(super) mod query;
pub(super) mod store;
pub(super) mod view;
pub(super) mod write;

use std::time::Duration;

use super::clock::{Epoch, epoch_millis};
use super::ids::{Permutation, ksuid, ksuid_payload, mix};

/// Users are created evenly over three years from 2023-01-01T00:00:00Z. Fixed, so that identifiers do not depend on
/// the day on which the simulator starts.
const FIRST_CREATED_MILLIS: i64 = 1_672_531_200_000;
const CREATION_SPAN_MILLIS: i64 = 3 * 365 * DAY_MILLIS;
const DAY_MILLIS: i64 = 86_400_000;

const FIRST_NAMES: [&str; 24] = [
    "Ada",
    "Alan",
    "Amina",
    "Barbara",
    "Chen",
    "Claude",
    "Dorothy",
    "Edsger",
    "Fatima",
    "Grace",
    "Hedy",
    "Ivan",
    "Jean",
    "Katherine",
    "Linus",
    "Margaret",
    "Niklaus",
    "Olga",
    "Priya",
    "Radia",
    "Satoshi",
    "Tim",
    "Yukihiro",
    "Zuse",
];
const LAST_NAMES: [&str; 24] = [
    "Adebayo", "Bauer", "Chandra", "Dubois", "Eriksen", "Fischer", "Garcia", "Haddad", "Ito", "Jansen", "Kowalski",
    "Lovelace", "Moreau", "Nakamura", "Okafor", "Petrov", "Quispe", "Rossi", "Sato", "Turner", "Ueda", "Virtanen",
    "Weber", "Yilmaz",
];

/// All users. A user is identified by its number, which is also its position in the order of creation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Directory {
    users: u32,
    seed: u64,
    permutation: Permutation,
    /// Midnight before the simulator's start: the last day of any user's activity.
    today_millis: i64,
}

impl Directory {
    pub(super) fn new(users: u32, seed: u64, base: Epoch) -> Self {
        let today_millis = epoch_millis(base).div_euclid(DAY_MILLIS) * DAY_MILLIS;
        Self { users, seed, permutation: Permutation::new(mix(seed, 0)), today_millis }
    }

    pub(super) fn len(&self) -> u32 {
        self.users
    }

    pub(super) fn id(&self, user: u32) -> String {
        let spread = self.permutation.apply(u64::from(user));
        ksuid("user_", self.created_seconds(user), spread, mix(spread, 1))
    }

    /// Returns the user with this identifier, in constant time.
    pub(super) fn find(&self, id: &str) -> Option<u32> {
        let (spread, _) = ksuid_payload("user_", id)?;
        let user = u32::try_from(self.permutation.undo(spread)).ok()?;
        (user < self.users && self.id(user) == id).then_some(user)
    }

    /// Returns another identifier of the user, which [`Self::of_spread`] maps back.
    pub(super) fn spread_id(&self, prefix: &str, user: u32, seed: u64) -> String {
        let spread = Permutation::new(mix(self.seed, seed)).apply(u64::from(user));
        ksuid(prefix, self.created_seconds(user), spread, mix(spread, 1))
    }

    /// Returns the user whose [`Self::spread_id`] this is, in constant time.
    pub(super) fn of_spread(&self, prefix: &str, id: &str, seed: u64) -> Option<u32> {
        let (spread, _) = ksuid_payload(prefix, id)?;
        let user = u32::try_from(Permutation::new(mix(self.seed, seed)).undo(spread)).ok()?;
        (user < self.users && self.spread_id(prefix, user, seed) == id).then_some(user)
    }

    pub(super) fn email(&self, user: u32) -> String {
        format!("{}.{}.{user}@example.com", self.first_name(user), self.last_name(user)).to_ascii_lowercase()
    }

    /// Returns the user with this e-mail address, ignoring case.
    pub(super) fn find_email(&self, email: &str) -> Option<u32> {
        let local = email.split_once('@')?.0;
        let user: u32 = local.rsplit_once('.')?.1.parse().ok()?;
        (user < self.users && self.email(user).eq_ignore_ascii_case(email)).then_some(user)
    }

    /// Returns the identifier of the user's only e-mail address.
    pub(super) fn email_id(&self, user: u32) -> String {
        let spread = mix(self.seed, u64::from(user));
        ksuid("idn_", self.created_seconds(user), spread, mix(spread, 2))
    }

    pub(super) fn username(&self, user: u32) -> String {
        format!("{}_{user}", self.first_name(user)).to_ascii_lowercase()
    }

    /// Returns the user who got this name at creation.
    pub(super) fn find_username(&self, name: &str) -> Option<u32> {
        let user: u32 = name.rsplit_once('_')?.1.parse().ok()?;
        (user < self.users && self.username(user) == name).then_some(user)
    }

    /// Every fourth user was imported and has an external identifier.
    pub(super) fn external_id(&self, user: u32) -> Option<String> {
        user.is_multiple_of(4).then(|| format!("legacy-{user}"))
    }

    /// Returns the user who got this external identifier at creation.
    pub(super) fn find_external_id(&self, id: &str) -> Option<u32> {
        let user: u32 = id.strip_prefix("legacy-")?.parse().ok()?;
        (user < self.users && self.external_id(user).as_deref() == Some(id)).then_some(user)
    }

    pub(super) fn first_name(&self, user: u32) -> &'static str {
        FIRST_NAMES[self.pick(user, 10, FIRST_NAMES.len())]
    }

    pub(super) fn last_name(&self, user: u32) -> &'static str {
        LAST_NAMES[self.pick(user, 11, LAST_NAMES.len())]
    }

    /// One user of two hundred is banned.
    pub(super) fn is_banned(&self, user: u32) -> bool {
        self.pick(user, 12, 200) == 0
    }

    /// Milliseconds since the epoch; rises with the user's number.
    pub(super) fn created_at(&self, user: u32) -> i64 {
        let slot = (CREATION_SPAN_MILLIS / i64::from(self.users.max(1))).max(1);
        let within = i64::try_from(self.hash(user, 13) % slot.unsigned_abs()).unwrap_or(0);
        FIRST_CREATED_MILLIS + i64::from(user) * slot + within
    }

    /// Returns the number of users for which `is_before(created_at)` holds, which is the first user for which it does
    /// not.
    pub(super) fn created_partition(&self, is_before: impl Fn(i64) -> bool) -> u32 {
        let (mut low, mut high) = (0, self.users);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_before(self.created_at(middle)) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Milliseconds since the epoch with the precision of a day, as Clerk reports it. Two of five users were active
    /// within 30 days, one of twenty never.
    pub(super) fn last_active_at(&self, user: u32) -> Option<i64> {
        let days = match self.pick(user, 14, 100) {
            0..40 => self.pick(user, 15, 30),
            40..70 => 30 + self.pick(user, 15, 150),
            70..95 => 180 + self.pick(user, 15, 550),
            _ => return None,
        };
        let day = self.today_millis - i64::try_from(days).unwrap_or(0) * DAY_MILLIS;
        let created = self.created_at(user);
        Some(day.max(created - created.rem_euclid(DAY_MILLIS)))
    }

    /// Milliseconds since the epoch.
    pub(super) fn last_sign_in_at(&self, user: u32) -> Option<i64> {
        let active = self.last_active_at(user)?;
        let within = i64::try_from(self.hash(user, 16) % DAY_MILLIS.unsigned_abs()).unwrap_or(0);
        Some((active - within).max(self.created_at(user)))
    }

    fn created_seconds(&self, user: u32) -> u64 {
        Duration::from_millis(self.created_at(user).unsigned_abs()).as_secs()
    }

    fn hash(&self, user: u32, field: u64) -> u64 {
        mix(self.seed ^ (field << 56), u64::from(user))
    }

    fn pick(&self, user: u32, field: u64, choices: usize) -> usize {
        usize::try_from(self.hash(user, field) % choices as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Epoch = Duration::from_secs(1_795_608_000);

    #[test]
    fn user_is_found_by_each_of_its_names() {
        let directory = Directory::new(1_000, 5, BASE);
        for user in 0..1_000 {
            assert_eq!(directory.find(&directory.id(user)), Some(user));
            assert_eq!(directory.find_email(&directory.email(user).to_uppercase()), Some(user));
            assert_eq!(directory.find_username(&directory.username(user)), Some(user));
            if let Some(id) = directory.external_id(user) {
                assert_eq!(directory.find_external_id(&id), Some(user));
            }
        }
    }

    #[test]
    fn foreign_identifiers_are_not_found() {
        let directory = Directory::new(1_000, 5, BASE);
        let larger = Directory::new(2_000, 5, BASE);
        assert_eq!(directory.find(&larger.id(1_500)), None);
        assert_eq!(directory.find(&Directory::new(1_000, 6, BASE).id(3)), None);
        for odd in ["", "user_", "user_2abc", "org_000000000000000000000000000", "user_000000000000000000000000000"] {
            assert_eq!(directory.find(odd), None, "{odd}");
        }
    }

    #[test]
    fn user_numbers_follow_the_order_of_creation() {
        let directory = Directory::new(50_000, 5, BASE);
        let created: Vec<_> = (0..50_000).map(|user| directory.created_at(user)).collect();
        assert!(created.is_sorted());
        for user in [0, 1, 17, 49_999] {
            let at = directory.created_at(user);
            assert_eq!(directory.created_partition(|created| created < at), user);
        }
    }

    #[test]
    fn two_of_five_users_were_active_within_thirty_days() {
        let directory = Directory::new(50_000, 5, BASE);
        let since = epoch_millis(BASE) - 30 * DAY_MILLIS;
        let active = (0..50_000).filter(|user| directory.last_active_at(*user).is_some_and(|at| at >= since)).count();
        assert!((19_000..22_500).contains(&active), "{active}");
    }

    #[test]
    fn empty_directory_finds_no_user() {
        let directory = Directory::new(0, 5, BASE);
        assert_eq!(directory.find(&directory.id(0)), None);
        assert_eq!(directory.created_partition(|_| true), 0);
    }
}
