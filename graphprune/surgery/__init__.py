# SPDX-License-Identifier: Apache-2.0
"""Surgery: carrying a plan out on the original message."""
