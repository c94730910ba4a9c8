// Reads vectors.txt, line by line.
#pragma once

#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "fakes.hpp"

namespace vectors {

using fakes::Buffer;

struct Line {
    std::string keyword;
    std::vector<std::string> arguments;
};

inline Buffer bytes(const std::string &hex) {
    Buffer data;
    for (size_t i = 0; hex != "-" && i + 1 < hex.size(); i += 2) {
        data.push_back(static_cast<uint8_t>(std::stoul(hex.substr(i, 2), nullptr, 16)));
    }
    return data;
}

inline std::string hex(const uint8_t *data, size_t size) {
    static const char digits[] = "0123456789abcdef";
    std::string text;
    for (size_t i = 0; i < size; ++i) {
        text += digits[data[i] >> 4];
        text += digits[data[i] & 15];
    }
    return size == 0 ? "-" : text;
}

/// The lines that say something.
inline std::vector<Line> read(const std::string &path) {
    std::ifstream file(path);
    std::vector<Line> lines;
    for (std::string row; std::getline(file, row);) {
        std::istringstream words(row);
        Line line;
        if (!(words >> line.keyword) || line.keyword[0] == '#') {
            continue;
        }
        for (std::string word; words >> word;) {
            line.arguments.push_back(word);
        }
        lines.push_back(line);
    }
    return lines;
}

inline std::map<std::string, Buffer> packs(const std::vector<Line> &lines) {
    std::map<std::string, Buffer> found = {{"none", {}}};
    std::string name;
    for (const Line &line : lines) {
        if (line.keyword == "pack") {
            name = line.arguments.at(0);
        } else if (line.keyword == "hex") {
            const Buffer more = bytes(line.arguments.at(0));
            found[name].insert(found[name].end(), more.begin(), more.end());
        }
    }
    return found;
}

}  // namespace vectors
