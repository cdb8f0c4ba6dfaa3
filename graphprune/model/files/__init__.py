# SPDX-License-Identifier: Apache-2.0
"""Files on disk: opened under suspicion, written atomically, and what they look like when they are no models."""
