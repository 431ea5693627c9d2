//! What clients can change, per instance.

use super::Options;
use super::context::Context;
use super::invitations::Invitations;
use super::machine_auth::api_keys::ApiKeys;
use super::machine_auth::m2m_tokens::MachineTokens;
use super::organizations::Organizations;
use super::sessions::Sessions;
use super::users::Directory;
use super::users::store::Users;
use super::users::view::View;

/// The resources of one instance.
#[derive(Debug, Default)]
pub(super) struct InstanceState {
    pub(super) users: Users,
    pub(super) organizations: Organizations,
    pub(super) invitations: Invitations,
    pub(super) sessions: Sessions,
    pub(super) api_keys: ApiKeys,
    pub(super) m2m_tokens: MachineTokens,
}

impl InstanceState {
    pub(super) fn view<'a>(&'a self, context: &Context<'a>) -> View<'a> {
        View { directory: context.directory, users: &self.users }
    }
}

/// The resources of all instances, in the order of the instances.
#[derive(Debug, Default)]
pub(super) struct State {
    instances: Vec<InstanceState>,
}

impl State {
    /// Returns the resources of an instance, generated at its first use.
    pub(super) fn of_instance(
        &mut self,
        instance: usize,
        options: &Options,
        directory: &Directory,
    ) -> &mut InstanceState {
        while self.instances.len() <= instance {
            let organizations = Organizations::generated(options.organizations, options.seed, directory);
            self.instances.push(InstanceState { organizations, ..InstanceState::default() });
        }
        &mut self.instances[instance]
    }

    /// Forgets all changes.
    pub(super) fn clear(&mut self) {
        self.instances.clear();
    }
}
