#include "linux/linux_system.hpp"

#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <sys/time.h>
#include <unistd.h>

#include "image.hpp"
#include "linux/mapped_file.hpp"
#include "policy_core/sha256.hpp"
#include "sdkconfig.h"

namespace board_port {
namespace {

using policy_core::Capability;
using policy_core::FaultKind;

constexpr const char *kProgram = "/proc/self/exe";
constexpr const char *kReasonVariable = "QUANT_RESET_REASON";
/// Locally administered.
constexpr uint8_t kMac[6] = {0x02, 'q', 'u', 'a', 'n', 't'};
/// As CONFIG_ESP_TASK_WDT_TIMEOUT_S on the chips.
constexpr time_t kWatchdogSeconds = 5;
/// SIGALRM is FreeRTOS's tick.
constexpr int kWatchdogSignal = SIGVTALRM;

constexpr uint32_t capabilities() {
    uint32_t bits = static_cast<uint32_t>(Capability::kWatchdog);
#if CONFIG_QUANT_TEST_FAULTS
    bits |= static_cast<uint32_t>(Capability::kTestFaults);
#endif
    return bits;
}

const char *variable(const char *name, const char *otherwise) {
    const char *value = std::getenv(name);
    return value != nullptr && value[0] != '\0' ? value : otherwise;
}

void read_mac(uint8_t mac[6]) {
    unsigned value[6];
    if (std::sscanf(variable("QUANT_MAC", ""), "%2x:%2x:%2x:%2x:%2x:%2x", &value[0], &value[1], &value[2], &value[3],
                    &value[4], &value[5]) != 6) {
        std::memcpy(mac, kMac, sizeof kMac);
        return;
    }
    for (int i = 0; i < 6; ++i) {
        mac[i] = static_cast<uint8_t>(value[i]);
    }
}

void bite(int) {
    constexpr char kMessage[] = "Task watchdog got triggered: the server was not alive for 5 s\r\n";
    if (::write(STDOUT_FILENO, kMessage, sizeof kMessage - 1) < 0) {
        // There is nobody left to tell.
    }
    std::signal(SIGALRM, SIG_DFL);
    std::raise(SIGALRM);
}

}  // namespace

LinuxSystem::LinuxSystem(uint32_t models_partition) : models_partition_(models_partition) {
    clock_gettime(CLOCK_MONOTONIC, &started_);
    identify();
    start_watchdog();
}

void LinuxSystem::identify() {
    identity_ = image_identity();
    identity_.evidence = policy_core::EvidenceCode::kComputed;
    identity_.capabilities = capabilities();
    identity_.cores = 1;
    read_mac(identity_.mac);
    const policy_core::Bytes program = map_file(kProgram);
    if (program.size > 0) {
        policy_core::sha256(program.data, program.size, identity_.elf_sha256);
        app_bytes_ = static_cast<uint32_t>(program.size);
    }
    identity_.reset_reason = variable(kReasonVariable, "power on");
}

void LinuxSystem::start_watchdog() {
    std::signal(kWatchdogSignal, bite);
    sigevent event = {};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = kWatchdogSignal;
    if (timer_create(CLOCK_MONOTONIC, &event, &watchdog_) != 0) {
        std::perror("watchdog");
        std::abort();
    }
    alive();
}

void LinuxSystem::stats(policy_core::SystemStats *into) {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    into->uptime_ms =
        static_cast<uint32_t>((now.tv_sec - started_.tv_sec) * 1000 + (now.tv_nsec - started_.tv_nsec) / 1000000);
    into->app_bytes = app_bytes_;
    into->models_partition = models_partition_;
    into->temperature = NAN;
}

void LinuxSystem::restart() {
    // Timers of setitimer, the signal mask and ignored signals outlive exec: FreeRTOS's tick must not kill the new
    // program before it has a handler for it.
    std::signal(SIGALRM, SIG_IGN);
    const itimerval off = {};
    ::setitimer(ITIMER_REAL, &off, nullptr);
    sigset_t none;
    sigemptyset(&none);
    ::pthread_sigmask(SIG_SETMASK, &none, nullptr);
    ::setenv(kReasonVariable, "software", 1);
    ::execl(kProgram, CONFIG_IDF_TARGET, static_cast<char *>(nullptr));
    std::perror("restart");
    ::_exit(1);
}

bool LinuxSystem::fault(FaultKind kind) {
#if CONFIG_QUANT_TEST_FAULTS
    if (kind == FaultKind::kPanic) {
        std::abort();
    }
    if (kind == FaultKind::kHang) {
        for (;;) {
            ::pause();
        }
    }
#else
    (void)kind;
#endif
    return false;
}

void LinuxSystem::alive() {
    itimerspec left = {};
    left.it_value.tv_sec = kWatchdogSeconds;
    timer_settime(watchdog_, 0, &left, nullptr);
}

}  // namespace board_port
