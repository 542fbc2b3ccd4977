//! What a service must be to run on a Marathon cluster.

use crate::model::{Fleet, InstanceSpec, MountSource, Packing, Service};

/// A field that does not fit, what is wrong with it, and what to do.
pub(super) type Misfit = (&'static str, String, &'static str);

/// The least memory that Mesos gives a container.
const LEAST_MEMORY: u64 = 4 << 20;

/// Why a service cannot be an app of the fleet's Marathon.
pub(super) fn misfit(service: &Service, fleet: &Fleet) -> Option<Misfit> {
    let name = &fleet.name;
    let spec: &InstanceSpec = &service.spec;
    let slotted = spec.mounts.iter().any(|m| matches!(m.source, MountSource::SlotVolume(_)));
    if slotted || !spec.files.is_empty() {
        let message =
            format!("the fleet {name} is a Marathon cluster, and this runs on Docker hosts");
        return Some(("spec.fleet", message, "name a fleet of Docker hosts"));
    }
    if spec.resources.memory_bytes < LEAST_MEMORY {
        let message =
            format!("the fleet {name} is a Marathon cluster, which limits every instance");
        return Some(("spec.resources.memory", message, "say how much memory an instance may use"));
    }
    if spec.networks.len() > 1 {
        let message =
            format!("on the fleet {name}, a Marathon cluster, an instance joins one network");
        return Some(("spec.networks", message, "name one, or none for the bridge"));
    }
    if service.placement.packing == Packing::Binpack {
        let message = format!("on the fleet {name} Mesos chooses the host");
        return Some(("spec.placement.packing", message, "leave packing out"));
    }
    if service.name.as_str().len() > 54 {
        let message = format!("too long for an app of the fleet {name}, a Marathon cluster");
        return Some(("metadata.name", message, "54 characters are the most"));
    }
    None
}
