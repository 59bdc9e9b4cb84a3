#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace torch_safetensors::io {

/// What the name of a temporary file says: `.st-<target>[.<domain>]-<slot>[-<token>]`, short also for the
/// longest target name. A name of any other form is not ours.
struct TemporaryName {
  std::string target;  ///< 16 hexadecimal digits: the hash of the target's name.
  std::string domain;  ///< Of its maker (lock_domain.h).
  int slot;            ///< The first that no living save to that target held, from 0.
  std::string token;   ///< 16 random hexadecimal digits, or nothing.
};

/// Saves to one target at a time, and leftovers that cannot be removed.
inline constexpr int kMaxSlots = 1024;

/// What the names of all temporary files for a target begin with, up to the slot.
std::string temporary_prefix(std::string_view target_name, std::string_view domain);

/// Digits for a name that no other file has, has had or will have.
std::string random_token();

/// The parts of a name that `temporary_prefix`, a slot and maybe a token make up; nothing for other names.
std::optional<TemporaryName> parse_temporary_name(std::string_view name);

}  // namespace torch_safetensors::io
